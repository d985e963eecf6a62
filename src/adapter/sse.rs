//! Server-sent events, cut out of bytes as they come. What is passed on is the bytes of an event as they were.

use bytes::{Bytes, BytesMut};

/// An event, with the blank line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its bytes as they came.
    pub raw: Bytes,
    /// Its data lines, joined; none where it has none, as a comment that keeps a connection alive.
    pub data: Option<String>,
}

/// An event passes what is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Cuts events out of a stream of bytes.
#[derive(Debug)]
pub struct Parser {
    buffer: BytesMut,
    /// Where the line begins that is not known to be whole.
    line: usize,
    /// How far that line has been looked at.
    seen: usize,
    event_bytes_max: usize,
}

impl Parser {
    /// A parser that takes events of up to `event_bytes_max` bytes.
    pub fn new(event_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), line: 0, seen: 0, event_bytes_max }
    }

    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event that is whole.
    ///
    /// # Errors
    /// Where the event that is under way is too long.
    pub fn next_event(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some((end, next)) = self.line_end() {
            let is_blank = end == self.line;
            self.line = next;
            self.seen = next;
            if is_blank {
                return Ok(Some(self.take(next)));
            }
        }
        if self.buffer.len() > self.event_bytes_max { Err(TooLong) } else { Ok(None) }
    }

    /// What is left at the end of the stream: an event that no blank line ended.
    pub fn finish(&mut self) -> Option<Event> {
        (!self.buffer.is_empty()).then(|| self.take(self.buffer.len()))
    }

    /// Where the line under way ends and the next one begins: after LF, CRLF or a CR that no LF follows.
    fn line_end(&mut self) -> Option<(usize, usize)> {
        while let Some(byte) = self.buffer.get(self.seen) {
            let at = self.seen;
            match byte {
                b'\n' => return Some((at, at + 1)),
                b'\r' => match self.buffer.get(at + 1) {
                    Some(b'\n') => return Some((at, at + 2)),
                    Some(_) => return Some((at, at + 1)),
                    // Whether an LF follows is not known yet.
                    None => return None,
                },
                _ => self.seen += 1,
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Event {
        self.line = 0;
        self.seen = 0;
        let raw = self.buffer.split_to(length).freeze();
        Event { data: data_of(&raw), raw }
    }
}

/// The lines of an event that have no meaning there, one after the other.
pub fn strays(raw: &[u8]) -> String {
    const FIELDS: [&str; 5] = ["", "data", "event", "id", "retry"];
    let text = String::from_utf8_lossy(raw);
    text.split(['\r', '\n']).filter(|line| !FIELDS.contains(&field_of(line).0)).collect()
}

/// The name of a line's field, and its value.
fn field_of(line: &str) -> (&str, &str) {
    let (field, value) = line.split_once(':').unwrap_or((line, ""));
    (field.trim_start_matches('\u{feff}'), value.strip_prefix(' ').unwrap_or(value))
}

fn data_of(raw: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(raw);
    let mut data: Option<String> = None;
    for line in text.split(['\r', '\n']).filter(|line| !line.is_empty()) {
        let (field, value) = field_of(line);
        if field != "data" {
            continue;
        }
        match &mut data {
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => data = Some(value.to_owned()),
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(stream: &[u8], piece: usize) -> (Vec<Event>, Option<Event>) {
        let mut parser = Parser::new(1_000);
        let mut events = Vec::new();
        for piece in stream.chunks(piece) {
            parser.push(piece);
            while let Some(event) = parser.next_event().unwrap() {
                events.push(event);
            }
        }
        let rest = parser.finish();
        (events, rest)
    }

    #[test]
    fn events_are_the_same_however_their_bytes_come() {
        let stream = "data: {\"a\":\"grüße 🦀\"}\n\n: alive\n\nevent: x\r\ndata: one\r\ndata:two\r\n\r\ndata\n\nid: 7\n\ndata: [DONE]\n\n";
        let whole = cut(stream.as_bytes(), stream.len());
        let data: Vec<Option<&str>> = whole.0.iter().map(|event| event.data.as_deref()).collect();
        assert_eq!(data, [Some("{\"a\":\"grüße 🦀\"}"), None, Some("one\ntwo"), Some(""), None, Some("[DONE]")]);
        assert_eq!(whole.1, None);
        let raw: Vec<u8> = whole.0.iter().flat_map(|event| event.raw.to_vec()).collect();
        assert_eq!(raw, stream.as_bytes());
        for piece in 1..20 {
            assert_eq!(cut(stream.as_bytes(), piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn lines_may_end_with_cr_alone_and_the_last_blank_line_may_be_missing() {
        let (events, rest) = cut(b"data: a\r\rdata: b\r\ndata: c", 3);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].data.as_deref(), Some("a"));
        assert_eq!(rest.unwrap().data.as_deref(), Some("b\nc"));
        assert_eq!(strays(b"data: a\r\nevent\n: b\nid:1\n\n"), "");
        assert_eq!(strays(b"<html>\ndata: a\r\ntext: b\n\n"), "<html>text: b");
    }

    #[test]
    fn an_event_has_a_bound() {
        let mut parser = Parser::new(10);
        parser.push(b"data: 1\n\ndata: 1234567890");
        assert!(parser.next_event().unwrap().is_some());
        assert_eq!(parser.next_event(), Err(TooLong));
    }
}
