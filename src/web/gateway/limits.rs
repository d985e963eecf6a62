//! What an answer's headers say of the day's limit.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::quota::{Limit, Refusal, Standing};
use crate::domain::unit::Timestamp;

/// Past so many seconds a client shall not wait for the reset by itself.
const WAIT_S_MAX: u64 = 60;

/// The day's limit, what is left of it and when it begins anew; nothing where there is none.
pub(super) fn tell(headers: &mut HeaderMap, standing: &Standing, now: Timestamp) {
    if let (Limit::AtMost(limit), Some(remaining)) = (standing.limit, standing.remaining()) {
        write(headers, limit, remaining, standing.resets_at.map_or(0, |at| now.seconds_until(at)));
    }
}

/// As [`tell`], for a call that was refused; and whether asking again soon is of any use.
pub(super) fn tell_refusal(headers: &mut HeaderMap, refusal: &Refusal, now: Timestamp) {
    let remaining = refusal.limit.saturating_sub(refusal.used).saturating_sub(refusal.reserved).max(0);
    write(headers, refusal.limit, remaining, refusal.resets_at.map_or(0, |at| now.seconds_until(at)));
    if refusal.retry_after_s.is_none_or(|seconds| seconds > WAIT_S_MAX) {
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
    }
}

fn write(headers: &mut HeaderMap, limit: i64, remaining: i64, reset_s: u64) {
    let mut set = |name: &'static str, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("ratelimit-policy", format!("\"llm_tokens\";q={limit};w=86400"));
    set("ratelimit", format!("\"llm_tokens\";r={remaining};t={reset_s}"));
    set("x-ratelimit-limit-tokens", limit.to_string());
    set("x-ratelimit-remaining-tokens", remaining.to_string());
    set("x-ratelimit-reset-tokens", duration(reset_s));
}

/// As OpenAI writes times: `1h2m3s`, `6m0s`, `5s`.
fn duration(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_openai_writes_them() {
        assert_eq!([0, 59, 360, 3_723].map(duration), ["0s", "59s", "6m0s", "1h2m3s"]);
    }
}
