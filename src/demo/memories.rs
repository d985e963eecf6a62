//! What the accounts remember, from `assets/demo/memories.txt`.
//!
//! A line `# PROJECT ACCOUNT` begins a project; below it stands a memory a line: type, tier, tags and text, between ` | `.
//! A text with `{a|b|c}` stands for as many memories as there are choices: the first has the first choice of every pair of
//! braces, and so on. The lines of a project are spread over the days in their order, and short-lived ones lie within the
//! last hours.

use serde_json::{Map, Value, json};

use super::random::Random;
use super::{ACCOUNTS, DAYS, Span};
use crate::domain::memory::{Content, MemoryTier};
use crate::domain::unit::Timestamp;

const LINES: &str = include_str!("../../assets/demo/memories.txt");

/// A line, with the project it belongs to.
struct Line<'t> {
    project: &'t str,
    account: usize,
    kind: &'t str,
    tier: MemoryTier,
    tags: &'t str,
    text: &'t str,
}

/// Every memory with the account it belongs to.
pub(super) fn all(span: &Span) -> Vec<(usize, Content)> {
    let mut random = Random::new(17);
    let lines = lines();
    let mut memories = Vec::new();
    for project in lines.chunk_by(|left, right| left.project == right.project) {
        let mut order: Vec<(usize, &Line<'_>, usize)> = Vec::new();
        for (number, line) in project.iter().enumerate() {
            let choices = choices_of(line.text);
            // Where a line stands for several memories, they lie far apart.
            let place = |choice| (number + choice * project.len()) * 1_000 / (choices * project.len());
            order.extend((0..choices).map(|choice| (place(choice), line, choice)));
        }
        order.sort_by_key(|(place, _, _)| *place);
        let count = i32::try_from(order.len()).unwrap_or(i32::MAX);
        for (number, (_, line, choice)) in (0..).zip(order) {
            let timestamp = if line.tier == MemoryTier::Short {
                span.now.plus_millis(-60_000 * random.within(10, 20 * 60))
            } else {
                let back = DAYS - 1 - (DAYS - 1) * number / count;
                span.at(back, random.within(7 * 60, 21 * 60))
            };
            memories.push((line.account, content(line, choice, timestamp, number)));
        }
    }
    memories
}

fn content(line: &Line<'_>, choice: usize, timestamp: Timestamp, number: i32) -> Content {
    const SOURCES: [&str; 3] = ["chat", "import", "agent"];
    let source = SOURCES.get(number.unsigned_abs() as usize % SOURCES.len()).copied().unwrap_or("chat");
    let mut metadata = Map::new();
    metadata.insert("project".to_owned(), Value::from(line.project));
    metadata.insert("source".to_owned(), json!(source));
    Content {
        tier: line.tier,
        kind: line.kind.to_owned(),
        text: chosen(line.text, choice),
        tags: line.tags.split(", ").map(str::to_owned).collect(),
        metadata,
        // About eight memories come from the same conversation; what was imported comes from none.
        session: (source != "import").then(|| format!("{}-{}", line.project, number / 8 + 1)),
        timestamp,
    }
}

fn lines() -> Vec<Line<'static>> {
    let (mut project, mut account) = ("", 0);
    let mut lines = Vec::new();
    for line in LINES.lines() {
        if let Some((named, whose)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) {
            project = named;
            let is_of = |email: &str| email.split_once('@').is_some_and(|(name, _)| name == whose);
            account = ACCOUNTS.iter().position(|account| is_of(account.email)).unwrap_or(account);
            continue;
        }
        let mut parts = line.splitn(4, " | ");
        let next = (parts.next(), parts.next().and_then(MemoryTier::parse), parts.next(), parts.next());
        if let (Some(kind), Some(tier), Some(tags), Some(text)) = next {
            lines.push(Line { project, account, kind, tier, tags, text });
        }
    }
    lines
}

/// How many memories a text stands for.
fn choices_of(text: &str) -> usize {
    let inside = text.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    inside.map_or(1, |(inside, _)| inside.split('|').count())
}

/// The text with the choice `number` of every pair of braces.
fn chosen(text: &str, number: usize) -> String {
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, (inside, after))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        made.push_str(before);
        made.push_str(inside.split('|').nth(number).unwrap_or(inside));
        rest = after;
    }
    made.push_str(rest);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_file_is_read_and_its_braces_agree() {
        let written = LINES.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(lines().len(), written);
        for line in lines() {
            assert!(line.kind.len() <= 64 && !line.tags.is_empty() && !line.project.is_empty());
            let mut rest = line.text;
            while let Some((_, after)) = rest.split_once('{') {
                let (inside, after) = after.split_once('}').unwrap();
                assert_eq!(inside.split('|').count(), choices_of(line.text), "{}", line.text);
                rest = after;
            }
        }
    }

    #[test]
    fn a_choice_is_made_in_all_braces_alike() {
        assert_eq!(choices_of("{a|b} and {c|d}"), 2);
        assert_eq!(chosen("{a|b} and {c|d}.", 1), "b and d.");
        assert_eq!(chosen("plain", 0), "plain");
    }
}
