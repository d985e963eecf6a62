//! Ninety days of calls to models and of agents at work.

use chrono::Datelike;
use serde_json::{Value, json};

use super::random::Random;
use super::{Act, DAYS, OWNER, STUDIO, Span, Step, TRIAL};
use crate::domain::ledger::ResourceType;
use crate::domain::unit::Timestamp;

/// How an account uses tokens.
struct Habit {
    account: usize,
    /// Tokens on a plain day at the beginning, and today.
    tokens: (i64, i64),
    /// Percent of a plain day, Monday first.
    week: [i64; 7],
    /// Hours of the day in which it works.
    hours: (i64, i64),
    /// Tokens of a call, about.
    call: i64,
    /// Whether its calls ask for the limit.
    enforce: bool,
    /// Tokens of today, where they are to be exact.
    today: Option<i64>,
}

const HABITS: [Habit; 3] = [
    Habit {
        account: STUDIO,
        tokens: (14_000, 37_000),
        week: [94, 108, 113, 104, 81, 14, 8],
        hours: (8, 19),
        call: 2_300,
        enforce: false,
        today: Some(42_500),
    },
    Habit {
        account: TRIAL,
        tokens: (260, 960),
        week: [78, 84, 90, 82, 100, 64, 52],
        hours: (15, 22),
        call: 140,
        enforce: true,
        today: None,
    },
    Habit {
        account: OWNER,
        tokens: (120_000, 310_000),
        week: [101, 106, 110, 98, 88, 31, 27],
        hours: (6, 21),
        call: 14_000,
        enforce: false,
        today: None,
    },
];

/// Days back at which the studio was moved to its tier.
const UPGRADED: i32 = 84;
/// Once a month's runs have taken this much, the studio starts no more: with the run that is under way it stays within its 60.
const STUDIO_MINUTES: i64 = 28;

/// Everything, in no order.
pub(super) fn plan(span: &Span) -> Vec<Step> {
    let mut random = Random::new(4);
    let mut steps = vec![Step { at: span.at(UPGRADED, 9 * 60), account: STUDIO, act: Act::Upgrade }];
    for habit in &HABITS {
        for back in 0..DAYS {
            calls(span, habit, back, &mut random, &mut steps);
        }
    }
    trial_today(span, &mut steps);
    studio_runs(span, &mut random, &mut steps);
    owner_runs(span, &mut random, &mut steps);
    // The trial knows no agents: what it tries is refused.
    let resource = ResourceType::AgentMinutes;
    for (back, minute) in [(23, 1_010), (6, 1_100), (0, 900)] {
        steps.push(Step {
            at: span.at(back, minute),
            account: TRIAL,
            act: Act::Hold { resource, amount: 5, ttl_s: 3_600 },
        });
    }
    holds(span, &mut steps);
    steps
}

/// The calls of a day.
fn calls(span: &Span, habit: &Habit, back: i32, random: &mut Random, steps: &mut Vec<Step>) {
    if back == 0 && habit.account == TRIAL {
        return;
    }
    let weekday = span.day(back).to_date().weekday().num_days_from_monday() as usize;
    let share = habit.week.get(weekday).copied().unwrap_or(100);
    let past = i64::from(DAYS - 1 - back);
    let (first, last) = habit.tokens;
    let plain = first + (last - first) * past / i64::from(DAYS - 1);
    let drawn = plain * share / 100 * random.within(78, 123) / 100;
    let total = habit.today.filter(|_| back == 0).unwrap_or(drawn);
    let count = (total / habit.call).clamp(2, 24);
    let (from, to) = (habit.hours.0 * 60, habit.hours.1 * 60);
    let mut left = total;
    for number in 0..count {
        let rest = count - number;
        let amount = if rest == 1 { left } else { left / rest * random.within(45, 156) / 100 }.max(1);
        left -= amount;
        // Today has only come so far.
        let at = if back == 0 {
            let begun = span.start(0).0;
            Timestamp(begun + (span.now.0 - begun) * (number + 1) / (count + 1))
        } else {
            span.at(back, random.within(from, to))
        };
        let act = call(amount, habit.enforce, random);
        steps.push(Step { at, account: habit.account, act });
    }
}

/// A call of one of three models.
fn call(amount: i64, enforce: bool, random: &mut Random) -> Act {
    let completion = amount * random.within(15, 45) / 100;
    let metadata = match random.within(0, 10) {
        0 => json!({"model": "embed-text", "kind": "embedding", "promptTokens": amount}),
        1..=3 => of_chat("chat-small", amount, completion),
        _ => of_chat("chat-large", amount, completion),
    };
    Act::Use { resource: ResourceType::LlmTokens, amount, enforce, metadata }
}

fn of_chat(model: &str, amount: i64, completion: i64) -> Value {
    json!({"model": model, "kind": "chat", "promptTokens": amount - completion, "completionTokens": completion})
}

/// The trial went past its 1,000 tokens with a call that had been let in before its length was known; since then it is refused.
fn trial_today(span: &Span, steps: &mut Vec<Step>) {
    const CALLS: [(i64, bool); 10] = [
        (212, true),
        (187, true),
        (240, true),
        (161, true),
        (280, false),
        (150, true),
        (150, true),
        (90, true),
        (120, true),
        (150, true),
    ];
    let begun = span.start(0).0;
    for (number, (amount, enforce)) in (1..).zip(CALLS) {
        let at = Timestamp(begun + (span.now.0 - begun) * number / 11);
        let metadata = of_chat("chat-large", amount, amount / 3);
        let act = Act::Use { resource: ResourceType::LlmTokens, amount, enforce, metadata };
        steps.push(Step { at, account: TRIAL, act });
    }
}

/// A run of `minutes` that begins at `at`, but ends by now. The older ones are told by their minutes alone: each step of a run
/// is a commit of its own, and whoever starts the demo waits for all of them.
fn run(span: &Span, account: usize, at: Timestamp, minutes: i64, agent: &'static str, steps: &mut Vec<Step>) {
    const TOLD_DAYS: i32 = 14;
    if at < span.start(TOLD_DAYS - 1) {
        let metadata = json!({"agent": agent, "kind": "run"});
        return steps.push(Step { at, account, act: Act::Work { minutes, metadata } });
    }
    // Its last minute has just begun when it ends.
    let length_ms = (minutes - 1) * 60_000 + 500;
    let at = at.min(span.now.plus_millis(-length_ms));
    steps.push(Step { at, account, act: Act::Begin { agent, minutes_max: minutes } });
    steps.push(Step { at: at.plus_millis(length_ms), account, act: Act::End { begun_at: at } });
}

fn is_weekend(span: &Span, back: i32) -> bool {
    span.day(back).to_date().weekday().num_days_from_monday() >= 5
}

/// A short run on many a working day, within the minutes of its month, and one today.
fn studio_runs(span: &Span, random: &mut Random, steps: &mut Vec<Step>) {
    let mut month = (0, 0);
    for back in (0..UPGRADED).rev() {
        let number = span.day(back).to_date().month();
        if number != month.0 {
            month = (number, 0);
        }
        let works = random.chance(35) && !is_weekend(span, back);
        let minutes = random.within(2, 7);
        if (works || back == 0) && month.1 < STUDIO_MINUTES {
            month.1 += minutes;
            let at = span.at(back, random.within(9 * 60, 17 * 60));
            run(span, STUDIO, at, minutes, "report-writer", steps);
        }
    }
}

/// Several longer runs a day.
fn owner_runs(span: &Span, random: &mut Random, steps: &mut Vec<Step>) {
    for back in 0..DAYS {
        let count = if is_weekend(span, back) { random.within(0, 2) } else { random.within(1, 5) };
        for _ in 0..count {
            let agent = if random.chance(60) { "night-editor" } else { "shelf-keeper" };
            let at = span.at(back, random.within(5 * 60, 22 * 60));
            let minutes = random.within(3, 28);
            run(span, OWNER, at, minutes, agent, steps);
        }
    }
}

/// What is under way at this moment: held for as long as one is likely to look, or for as long as there are minutes.
fn holds(span: &Span, steps: &mut Vec<Step>) {
    const HELD: [(usize, i64, i64); 3] =
        [(STUDIO, 1_800, 8 * 3_600), (STUDIO, 900, 6 * 3_600), (OWNER, 12_000, 10 * 3_600)];
    const RUNNING: [(usize, i64, &str, i64); 2] = [(STUDIO, 4, "report-writer", 24), (OWNER, 11, "shelf-keeper", 720)];
    let resource = ResourceType::LlmTokens;
    for (account, amount, ttl_s) in HELD {
        steps.push(Step { at: span.now, account, act: Act::Hold { resource, amount, ttl_s } });
    }
    for (account, minutes, agent, minutes_max) in RUNNING {
        let at = span.now.plus_millis(-(minutes - 1) * 60_000 - 500);
        steps.push(Step { at, account, act: Act::Begin { agent, minutes_max } });
        steps.push(Step { at: span.now, account, act: Act::Beat });
    }
}
