//! The rules of the metered gateway: what a call asks, what it may cost at most, what it did cost.

pub mod body;
pub mod estimate;
pub mod figures;
pub mod request;
pub mod route;
pub mod usage;

/// Which of the dialect's calls it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/embeddings`
    Embeddings,
}

impl Endpoint {
    /// The path below the base URL, which also names it in entries.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
        }
    }

    /// Whether an answer has tokens of its own, which a request may bound.
    pub const fn has_output(self) -> bool {
        !matches!(self, Self::Embeddings)
    }
}

/// Tokens of an answer where the request names none, and the least that a call is worth.
#[derive(Clone, Copy, Debug)]
pub struct OutputBounds {
    /// `gateway.output_tokens_default`
    pub default: i64,
    /// `gateway.output_tokens_min`
    pub min: i64,
}

/// What a call may cost at most, as it asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Upper bound of the prompt's tokens, above 0.
    pub prompt: i64,
    /// Most tokens of one answer, where the request names them.
    pub output: Option<i64>,
    /// How many answers are generated, at least 1; 0 where there are none to generate.
    pub choices: i64,
}

/// What a call is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What is held.
    pub hold: i64,
    /// Most tokens of one answer, where the request must be told so: it named none, or more than remains.
    pub output_max: Option<i64>,
    /// Whether there is a limit at all, so that a stream that passes its hold is cut.
    pub is_limited: bool,
}

impl Wish {
    /// Fits the wish into what `remaining` bears (none: no limit).
    ///
    /// # Errors
    /// What it would have needed at least, where not even that remains.
    pub fn fit(self, remaining: Option<i64>, bounds: OutputBounds) -> Result<Grant, i64> {
        let cost = |output: i64| self.prompt.saturating_add(output.saturating_mul(self.choices));
        let wanted = self.output.unwrap_or(bounds.default);
        let Some(remaining) = remaining else {
            return Ok(Grant { hold: cost(wanted), output_max: None, is_limited: false });
        };
        if cost(wanted) <= remaining {
            let output_max = (self.output.is_none() && self.choices > 0).then_some(wanted);
            return Ok(Grant { hold: cost(wanted), output_max, is_limited: true });
        }
        let least = wanted.min(bounds.min);
        let fitting = remaining.saturating_sub(self.prompt).checked_div(self.choices).unwrap_or(-1);
        if fitting < least {
            return Err(cost(least));
        }
        Ok(Grant { hold: cost(fitting), output_max: Some(fitting), is_limited: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: OutputBounds = OutputBounds { default: 4_096, min: 16 };

    fn wish(prompt: i64, output: Option<i64>, choices: i64) -> Wish {
        Wish { prompt, output, choices }
    }

    #[test]
    fn what_fits_is_granted_as_it_was_asked_for() {
        let grant = wish(100, Some(50), 3).fit(Some(250), BOUNDS).unwrap();
        assert_eq!((grant.hold, grant.output_max), (250, None));
        let grant = wish(100, None, 1).fit(Some(10_000), BOUNDS).unwrap();
        assert_eq!((grant.hold, grant.output_max), (4_196, Some(4_096)));
        let grant = wish(100, None, 1).fit(None, BOUNDS).unwrap();
        assert_eq!((grant.hold, grant.output_max, grant.is_limited), (4_196, None, false));
    }

    #[test]
    fn what_does_not_fit_is_clamped_and_below_the_least_refused() {
        let grant = wish(100, Some(5_000), 2).fit(Some(201), BOUNDS).unwrap();
        assert_eq!((grant.hold, grant.output_max), (200, Some(50)));
        assert_eq!(wish(100, None, 1).fit(Some(116), BOUNDS).unwrap().output_max, Some(16));
        assert_eq!(wish(100, None, 1).fit(Some(115), BOUNDS), Err(116));
        assert_eq!(wish(100, Some(4), 1).fit(Some(103), BOUNDS), Err(104));
        assert_eq!(wish(100, Some(4), 1).fit(Some(104), BOUNDS).unwrap().hold, 104);
    }

    #[test]
    fn a_call_without_an_answer_of_its_own_is_held_for_its_prompt_alone() {
        assert_eq!(wish(100, None, 0).fit(Some(100), BOUNDS).unwrap().hold, 100);
        assert_eq!(wish(100, None, 0).fit(Some(99), BOUNDS), Err(100));
    }
}
