//! Sizes and amounts as people read them.

use proptest::prelude::*;
use tallybox::domain::unit::{human_bytes, thousands};

/// The bounds of what a text may stand for, in bytes: half a hundredth of its unit to either side.
fn stands_for(text: &str) -> (i128, i128) {
    let (number, unit) = text.split_once(' ').unwrap();
    let unit: i128 = match unit {
        "B" => return (number.parse().unwrap(), number.parse().unwrap()),
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        "PB" => 1 << 50,
        other => unreachable!("{other}"),
    };
    let (whole, hundredths) = number.split_once('.').unwrap();
    assert_eq!(hundredths.len(), 2, "{text}");
    let negative = whole.starts_with('-');
    let magnitude = whole.trim_start_matches('-').parse::<i128>().unwrap() * 100 + hundredths.parse::<i128>().unwrap();
    let (low, high) = ((magnitude * 2 - 1) * unit / 200, ((magnitude * 2 + 1) * unit).div_euclid(200) + 1);
    if negative { (-high, -low) } else { (low, high) }
}

/// Amounts of every magnitude.
fn any_amount() -> impl Strategy<Value = i64> {
    (any::<i64>(), 0_u32..63).prop_map(|(amount, shift)| amount >> shift)
}

fn reads_as_what_it_is(bytes: i64) -> Result<(), TestCaseError> {
    let text = human_bytes(bytes);
    let (low, high) = stands_for(&text);
    prop_assert!(low <= i128::from(bytes) && i128::from(bytes) <= high, "{bytes} reads as {text}");
    prop_assert_eq!(text.starts_with('-'), bytes < 0);
    Ok(())
}

fn reads_as_no_less(bytes: i64, more: i64) -> Result<(), TestCaseError> {
    let more = bytes.saturating_add(more);
    let (low, _) = stands_for(&human_bytes(bytes));
    let (_, high) = stands_for(&human_bytes(more));
    prop_assert!(low <= high, "{} and {}", human_bytes(bytes), human_bytes(more));
    Ok(())
}

fn is_grouped(amount: i64) -> Result<(), TestCaseError> {
    let text = thousands(amount);
    prop_assert_eq!(text.replace(',', "").parse::<i64>().unwrap(), amount);
    let groups: Vec<&str> = text.trim_start_matches('-').split(',').collect();
    prop_assert!((1..=3).contains(&groups[0].len()) && groups[1..].iter().all(|group| group.len() == 3), "{text}");
    Ok(())
}

proptest! {
    #[test]
    fn a_size_reads_as_what_it_is(bytes in any_amount()) {
        reads_as_what_it_is(bytes)?;
    }

    #[test]
    fn more_never_reads_as_less(bytes in any_amount(), more in 0_i64..1_000_000) {
        reads_as_no_less(bytes, more)?;
    }

    #[test]
    fn grouped_digits_are_the_number(amount in any_amount()) {
        is_grouped(amount)?;
    }
}

#[test]
fn the_sizes_of_the_corpus_read_as_what_they_are() {
    for (name, text) in super::corpus_texts("sizes") {
        for amount in text.lines().map(|line| line.parse::<i64>().unwrap()) {
            let held = reads_as_what_it_is(amount)
                .and_then(|()| reads_as_no_less(amount, 1))
                .and_then(|()| is_grouped(amount));
            held.unwrap_or_else(|error| unreachable!("{name}: {amount}: {error}"));
        }
    }
}

#[test]
fn the_ends_of_what_can_be_counted_read_as_well() {
    assert_eq!(human_bytes(i64::MAX), "8192.00 PB");
    assert_eq!(human_bytes(i64::MIN), "-8192.00 PB");
    assert_eq!(thousands(i64::MIN), "-9,223,372,036,854,775,808");
}
