//! What an upstream says that a call cost, and what an answer says that can be counted.

use serde_json::Value;

use crate::domain::unit::AMOUNT_MAX;

/// Tokens of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: i64,
    /// Of the answers.
    pub completion: i64,
    /// All that counts: at least the two together.
    pub total: i64,
    /// Of the prompt, those that came from the upstream's cache.
    pub cached: Option<i64>,
    /// Of the answers, those that were thought and not said.
    pub reasoning: Option<i64>,
}

impl Usage {
    /// Reads a `usage` object of either dialect, of a call whose answer has tokens of its own or has none (`has_output`).
    /// None where it is no whole count: a number that is missing, negative, no integer or past what an entry can hold is not
    /// believed, and neither is one that is all zeros. What the answer cost may also be what the total leaves of it.
    pub fn parse(usage: &Value, has_output: bool) -> Option<Self> {
        let number = |value: &Value| value.as_i64().filter(|number| (0..=AMOUNT_MAX).contains(number));
        let either = |one: &str, other: &str| usage.get(one).or_else(|| usage.get(other));
        let prompt = number(either("prompt_tokens", "input_tokens")?)?;
        let said = usage.get("total_tokens").and_then(number).unwrap_or(0);
        let completion = match either("completion_tokens", "output_tokens") {
            None | Some(Value::Null) if has_output => Some(said.saturating_sub(prompt)).filter(|rest| *rest > 0)?,
            None | Some(Value::Null) => 0,
            Some(value) => number(value)?,
        };
        let sum = prompt.saturating_add(completion);
        let detail = |one: &str, other: &str, name: &str| either(one, other)?.get(name).and_then(number);
        let total = sum.max(said);
        (1..=AMOUNT_MAX).contains(&total).then(|| Self {
            prompt,
            completion,
            total,
            cached: detail("prompt_tokens_details", "input_tokens_details", "cached_tokens"),
            reasoning: detail("completion_tokens_details", "output_tokens_details", "reasoning_tokens"),
        })
    }
}

/// Members that are labels, not what a model wrote.
const LABELS: [&str; 15] = [
    "id",
    "item_id",
    "annotations",
    "type",
    "role",
    "status",
    "object",
    "call_id",
    "index",
    "finish_reason",
    "encrypted_content",
    // A picture.
    "result",
    "logprobs",
    "data",
    "obfuscation",
];

/// Hands every text that a model wrote in `value` to `visit`.
pub fn written(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| written(item, visit)),
        Value::Object(members) => {
            members
                .iter()
                .filter(|(name, _)| !LABELS.contains(&name.as_str()))
                .for_each(|(_, value)| written(value, visit));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Hands what a whole answer says to `visit`: its choices' messages or texts, or its output items; or else whatever it has.
pub fn written_in_answer(answer: &Value, visit: &mut impl FnMut(&str)) {
    let (choices, output) = (answer.get("choices").and_then(Value::as_array), answer.get("output"));
    if choices.is_none() && output.is_none() {
        return written_in_other(answer, visit);
    }
    for choice in choices.into_iter().flatten() {
        for name in ["message", "text"] {
            if let Some(value) = choice.get(name) {
                written(value, visit);
            }
        }
    }
    if let Some(output) = output {
        written(output, visit);
    }
}

/// Hands the texts of what is no answer of the dialect to `visit`, but for those that are surely not a model's.
pub fn written_in_other(value: &Value, visit: &mut impl FnMut(&str)) {
    const AROUND: [&str; 5] = ["error", "model", "service_tier", "system_fingerprint", "usage"];
    match value.as_object() {
        Some(members) => {
            let beside = |name: &str| !AROUND.contains(&name) && !LABELS.contains(&name);
            members.iter().filter(|(name, _)| beside(name)).for_each(|(_, value)| written(value, visit));
        }
        None => written(value, visit),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_dialects_are_read() {
        let chat = json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}});
        let responses = json!({"input_tokens": 7, "output_tokens": 5, "total_tokens": 12,
            "input_tokens_details": {"cached_tokens": 3}, "output_tokens_details": {"reasoning_tokens": 2}});
        let expected = Usage { prompt: 7, completion: 5, total: 12, cached: Some(3), reasoning: Some(2) };
        assert_eq!((Usage::parse(&chat, true), Usage::parse(&responses, true)), (Some(expected), Some(expected)));
        let embeddings = json!({"prompt_tokens": 7, "total_tokens": 7});
        assert_eq!(Usage::parse(&embeddings, false).unwrap().total, 7);
    }

    #[test]
    fn the_greater_of_sum_and_total_counts() {
        let thought = json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 40});
        assert_eq!(Usage::parse(&thought, true).unwrap().total, 40);
        let lying = json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 1});
        assert_eq!(Usage::parse(&lying, true).unwrap().total, 12);
        let untold = Usage::parse(&json!({"prompt_tokens": 7, "total_tokens": 12}), true).unwrap();
        assert_eq!((untold.completion, untold.total), (5, 12));
    }

    #[test]
    fn what_is_no_count_is_not_believed() {
        for usage in [
            json!(null),
            json!({}),
            json!({"prompt_tokens": "7"}),
            json!({"prompt_tokens": -7, "completion_tokens": 5}),
            json!({"prompt_tokens": 7, "completion_tokens": -5}),
            json!({"prompt_tokens": 7, "completion_tokens": 1.5}),
            json!({"prompt_tokens": 1e300, "completion_tokens": 5}),
            json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
            json!({"prompt_tokens": AMOUNT_MAX, "completion_tokens": 5}),
            json!({"prompt_tokens": 7}),
            json!({"prompt_tokens": 7, "completion_tokens": null, "total_tokens": 7}),
        ] {
            assert_eq!(Usage::parse(&usage, true), None, "{usage}");
        }
    }

    #[test]
    fn what_a_model_wrote_is_found_and_labels_are_not() {
        let answer = json!({"id": "x", "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "a",
            "tool_calls": [{"id": "call", "type": "function", "function": {"name": "b", "arguments": "{}"}}]}}]});
        let mut texts = Vec::new();
        written_in_answer(&answer, &mut |text| texts.push(text.to_owned()));
        texts.sort();
        assert_eq!(texts, ["a", "b", "{}"]);
        let mut texts = Vec::new();
        let other = json!({"model": "m", "error": {"message": "no"}, "id": "x", "message": {"role": "assistant", "content": "a"}});
        written_in_answer(&other, &mut |text| texts.push(text.to_owned()));
        assert_eq!(texts, ["a"]);
    }
}
