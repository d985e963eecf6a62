//! Server-sent events are the same however their bytes come.

use proptest::prelude::*;
use tallybox::adapter::sse::{Event, Parser};

fn events_of<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Vec<Event> {
    let mut parser = Parser::new(1_000_000);
    let mut events = Vec::new();
    for piece in pieces {
        parser.push(piece);
        while let Some(event) = parser.next_event().unwrap() {
            events.push(event);
        }
    }
    events.extend(parser.finish());
    events
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "data: one",
        "data:",
        "data",
        "data:  two",
        ": alive",
        "event: x",
        "id: 7",
        "\n",
        "\n\n",
        "\r",
        "\r\n",
        "\r\r",
        "\r\n\r\n",
        "\u{feff}data: x",
        "data: gr\u{fc}\u{df}e \u{1f980}",
        "data: [DONE]",
        " ",
    ];
    let piece = prop_oneof![
        6 => proptest::sample::select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn is_the_same(stream: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let whole = events_of(std::iter::once(stream));
    let raw: Vec<u8> = whole.iter().flat_map(|event| event.raw.to_vec()).collect();
    prop_assert_eq!(&raw, stream, "a byte was lost");
    prop_assert_eq!(&events_of(stream.chunks(1)), &whole, "byte by byte");
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([0, stream.len()]).collect();
    ends.sort_unstable();
    prop_assert_eq!(events_of(ends.windows(2).map(|ends| &stream[ends[0]..ends[1]])), whole);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn any_split_gives_the_same_events(stream in any_stream(), cuts in proptest::collection::vec(any::<usize>(), 0..8)) {
        is_the_same(&stream, &cuts)?;
    }
}

#[test]
fn the_streams_of_the_corpus_are_the_same_however_they_come() {
    for (name, stream) in super::corpus("streams") {
        for cut in 0..=stream.len() {
            is_the_same(&stream, &[cut, cut + 1]).unwrap_or_else(|error| unreachable!("{name}: {error}"));
        }
    }
}
