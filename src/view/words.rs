//! What the program says, as a page says it: amounts with commas, faults in sentences.

use maud::{Markup, html};

use crate::domain::Fault;
use crate::domain::ledger::ResourceType;
use crate::domain::unit::human_bytes;

/// An amount in words, with the commas of a page: `1,200 tokens`, `1,023.96 MB`.
pub fn amount_words(resource: ResourceType, amount: i64) -> String {
    with_comma(resource.human(amount))
}

/// A size in words, with the commas of a page.
pub fn size(bytes: i64) -> String {
    with_comma(human_bytes(bytes))
}

/// A size from 1,000 to 1,023 of its unit has no comma in answers for programs.
fn with_comma(words: String) -> String {
    let digits = words.bytes().take_while(u8::is_ascii_digit).count();
    match words.split_at_checked(digits.saturating_sub(3)) {
        Some((head, tail)) if digits == 4 => format!("{head},{tail}"),
        _ => words,
    }
}

/// A message of the program as a page says it: a sentence, with the first letter large and a full stop at the end. The forms
/// say "email".
pub fn sentence(text: &str) -> String {
    let text = on_pages(text);
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

/// Answers for programs say "e-mail", the labels of forms "Email": on a page it is one word.
pub(super) fn on_pages(text: &str) -> String {
    text.replace("e-mail", "email").replace("E-mail", "Email")
}

/// What was wrong with a form, in sentences that name its fields by their `labels` (name, label).
pub fn faults_in_words(faults: &[Fault], labels: &[(&str, &str)]) -> String {
    const MISSING: &str = "is required";
    let label = |fault: &Fault| {
        let known = labels.iter().find(|(name, _)| *name == fault.field);
        known.map_or_else(|| fault.field.clone(), |(_, label)| (*label).to_owned())
    };
    let mut missing: Vec<&Fault> = faults.iter().filter(|fault| fault.message == MISSING).collect();
    missing.sort_by_key(|fault| labels.iter().position(|(name, _)| *name == fault.field));
    let missing: Vec<String> = missing.into_iter().map(label).collect();
    let missing = match missing.as_slice() {
        [] => None,
        [one] => Some(format!("{one} is required.")),
        [firsts @ .., last] => {
            let words = format!("{} and {last} are required", firsts.join(", ")).to_lowercase();
            Some(sentence(&words))
        }
    };
    let others = faults.iter().filter(|fault| fault.message != MISSING).map(|fault| {
        // What does not speak of its field says all of it.
        let speaks_of_field = ["is ", "must "].iter().any(|verb| fault.message.starts_with(verb));
        if speaks_of_field {
            sentence(&format!("{} {}", label(fault), fault.message))
        } else {
            sentence(&fault.message)
        }
    });
    missing.into_iter().chain(others).collect::<Vec<_>>().join(" ")
}

/// Text whose dates stay on one line.
pub(super) fn unbroken(text: &str) -> Markup {
    let is_date = |word: &str| word.contains('-') && word.starts_with(|first: char| first.is_ascii_digit());
    html! {
        @for (index, word) in text.split(' ').enumerate() {
            @if index > 0 { " " }
            @if is_date(word) { span.nowrap { (word) } } @else { (word) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_close_to_the_next_unit_has_its_comma() {
        assert_eq!(amount_words(ResourceType::MemoryStorage, (1 << 30) - 42_000), "1,023.96 MB");
        assert_eq!(size(1_000), "1,000 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(amount_words(ResourceType::LlmTokens, 1_234), "1,234 tokens");
    }

    #[test]
    fn faults_are_told_by_the_labels_of_their_fields() {
        let told = |faults: &[(&str, &str)]| {
            let faults: Vec<Fault> = faults.iter().map(|(field, message)| Fault::new(*field, *message)).collect();
            faults_in_words(&faults, &[("amount", "Amount"), ("reason", "Reason"), ("email", "Email")])
        };
        assert_eq!(told(&[("reason", "is required"), ("amount", "is required")]), "Amount and reason are required.");
        assert_eq!(
            told(&[("amount", "must be a whole number"), ("reason", "is required")]),
            "Reason is required. Amount must be a whole number."
        );
        assert_eq!(told(&[("email", "another user has this e-mail address")]), "Another user has this email address.");
        assert_eq!(told(&[("once", "is required")]), "once is required.");
    }
}
