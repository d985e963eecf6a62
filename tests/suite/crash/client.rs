//! A client that does one thing after the other, and remembers what it was told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::server::Caller;
use super::{EMAIL, PASSWORD, Random};

/// Numbers that a client of a round has for its acts.
const MARKS: u64 = 10_000;

/// What was asked. Each act has a number that no other has: it is the amount of the entry or of the hold, or stands in the
/// text or the name, so that it can be counted afterwards.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// One entry.
    Record,
    /// Three entries: this number and the two after it.
    Batch,
    Hold,
    /// An entry for the hold of this id.
    Settle {
        hold: String,
    },
    Store,
    /// Of the memory of this id, stored under the number.
    Delete {
        memory: String,
    },
    Login,
    Run,
    /// Of the run of this id, started under the number.
    Stop {
        run: String,
    },
}

/// Something that was asked, and what came back.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) what: What,
    pub(super) mark: u64,
    /// The answer; none where the server was killed before it was given.
    pub(super) answer: Option<Value>,
}

impl Act {
    fn path(&self) -> (&'static str, String) {
        match &self.what {
            What::Record => ("POST", "/usage/record".to_owned()),
            What::Batch => ("POST", "/usage/record/batch".to_owned()),
            What::Hold => ("POST", "/usage/reservations".to_owned()),
            What::Settle { hold } => ("POST", format!("/usage/reservations/{hold}/settle")),
            What::Store => ("POST", "/memory/store".to_owned()),
            What::Delete { memory } => ("DELETE", format!("/memory/{memory}")),
            What::Login => ("POST", "/auth/login".to_owned()),
            What::Run => ("POST", "/agents/runs".to_owned()),
            What::Stop { run } => ("POST", format!("/agents/runs/{run}/stop")),
        }
    }

    fn body(&self) -> Option<Value> {
        let tokens = |amount: u64| json!({"resourceType": "llm_tokens", "amount": amount});
        match &self.what {
            What::Record => Some(tokens(self.mark)),
            What::Batch => Some(json!({"entries": [tokens(self.mark), tokens(self.mark + 1), tokens(self.mark + 2)]})),
            What::Hold => Some(json!({"resourceType": "llm_tokens", "amount": self.mark, "ttlSeconds": 86_400})),
            What::Settle { .. } => Some(json!({"amount": self.mark})),
            What::Store => {
                // The same vector for the same number, of no meaning.
                let vector: Vec<f64> =
                    (0..384_u32).map(|number| (f64::from(number) + f64::from(self.small_mark())).sin()).collect();
                Some(json!({"type": "t", "input_context": self.text(), "embedding": vector}))
            }
            What::Delete { .. } => None,
            What::Login => Some(json!({"email": EMAIL, "password": PASSWORD})),
            What::Run => Some(json!({"name": self.text()})),
            What::Stop { .. } => Some(json!({})),
        }
    }

    fn small_mark(&self) -> u32 {
        u32::try_from(self.mark % 1_000_003).unwrap()
    }

    /// What a memory says, or what a run is called.
    pub(super) fn text(&self) -> String {
        format!("said under number{}", self.mark)
    }

    /// Whether the server has said that it is done.
    pub(super) const fn is_acknowledged(&self) -> bool {
        self.answer.is_some()
    }

    /// Sends it, for the first time or again, and gives status and answer.
    pub(super) fn send(&self, caller: &Caller<'_>) -> Option<(u16, Value)> {
        let (method, path) = self.path();
        // A key is for what creates; the others may be repeated as they are.
        let is_keyed = matches!(self.what, What::Record | What::Batch | What::Hold | What::Store | What::Run);
        let key = is_keyed.then(|| format!("number-{}", self.mark));
        caller.call(method, &path, key.as_deref(), self.body().as_ref())
    }
}

/// A client of one round.
pub(super) struct Client<'t> {
    caller: Caller<'t>,
    random: Random,
    next_mark: u64,
    acts: Vec<Act>,
    /// Numbers of entries that were acknowledged, of all clients.
    acknowledged: &'t Mutex<Vec<u64>>,
    holds: Vec<String>,
    /// Ids with the number of the act that made them.
    memories: Vec<(String, u64)>,
    runs: Vec<(String, u64)>,
}

impl<'t> Client<'t> {
    pub(super) fn new(
        caller: Caller<'t>,
        random: Random,
        (round, number): (u64, u64),
        acknowledged: &'t Mutex<Vec<u64>>,
    ) -> Self {
        let next_mark = 1 + (round * super::CLIENTS + number) * MARKS;
        let (holds, memories, runs) = (Vec::new(), Vec::new(), Vec::new());
        Self { caller, random, next_mark, acts: Vec::new(), acknowledged, holds, memories, runs }
    }

    /// Acts until the server is gone, and gives what was done.
    pub(super) fn go_on(mut self, stop: &AtomicBool) -> Vec<Act> {
        while !stop.load(Ordering::SeqCst) && self.act() {}
        self.acts
    }

    /// One act, by chance; false where no answer came.
    fn act(&mut self) -> bool {
        let mark = self.next_mark;
        self.next_mark += 3;
        let what = match self.random.below(100) {
            0..30 => What::Record,
            30..40 => What::Batch,
            40..55 => What::Hold,
            55..65 => self.holds.pop().map_or(What::Hold, |hold| What::Settle { hold }),
            65..80 => What::Store,
            80..88 => return self.delete(),
            88..91 => What::Login,
            91..96 => What::Run,
            _ => return self.stop(),
        };
        self.send(what, mark)
    }

    fn delete(&mut self) -> bool {
        let Some((memory, mark)) = self.memories.pop() else { return true };
        self.send(What::Delete { memory }, mark)
    }

    fn stop(&mut self) -> bool {
        let Some((run, mark)) = self.runs.pop() else { return true };
        self.send(What::Stop { run }, mark)
    }

    fn send(&mut self, what: What, mark: u64) -> bool {
        let mut act = Act { what, mark, answer: None };
        let sent = act.send(&self.caller);
        let is_answered = sent.is_some();
        if let Some((status, answer)) = sent {
            assert!((200..300).contains(&status), "{act:?}: {status} {answer}");
            let id = || answer["id"].as_str().unwrap().to_owned();
            match act.what {
                What::Hold => self.holds.push(id()),
                What::Store => self.memories.push((id(), mark)),
                What::Run => self.runs.push((id(), mark)),
                What::Record => self.acknowledged.lock().unwrap().push(mark),
                _ => {}
            }
            act.answer = Some(answer);
        }
        self.acts.push(act);
        is_answered
    }
}
