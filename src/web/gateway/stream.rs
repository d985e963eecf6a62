//! An answer that comes in pieces, on its way from the upstream to the caller.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Bytes, HttpBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::dialect::{Dialect, Verdict, is_done};
use super::held::{Held, Outcome};
use super::meter::Meter;
use super::watch::{Watch, stopped};
use crate::adapter::sse::{Event, Parser, strays};
use crate::adapter::upstream::{Fault, Opened};
use crate::domain::gateway::Endpoint;

/// After how long a stream writes down how far it is: at the next look at its credential, so that 2 s never pass.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(1_500);
/// A client that takes nothing for so long has gone.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the end of an answer is waited for after its last event, so that its connection can be used again.
const LAST_BYTES_WAIT: Duration = Duration::from_millis(100);

/// The body of such an answer.
pub(super) struct Pieces(pub(super) mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// A stream under way.
pub(super) struct Stream<'c> {
    pub(super) held: &'c mut Held,
    pub(super) meter: Meter,
    pub(super) dialect: Dialect,
    pub(super) endpoint: Endpoint,
    pub(super) parser: Parser,
    pub(super) caller: mpsc::Sender<Bytes>,
    /// What the caller has not taken yet.
    pub(super) waiting: VecDeque<Bytes>,
}

/// Why a stream goes no further, and what the caller still gets.
struct End {
    outcome: Outcome,
    last: Bytes,
}

impl Stream<'_> {
    /// Passes the answer on to its end, and settles it before the last byte. Gives what it said where it ended as it should and
    /// that is wanted.
    pub(super) async fn run(mut self, mut opened: Opened, watch: &mut Watch) -> Option<String> {
        let end = self.pass(&mut opened, watch).await;
        match end.outcome {
            Outcome::Complete => opened.note_complete(),
            Outcome::UpstreamBroke => opened.note_broken(&Fault::Broken),
            _ => {}
        }
        if end.outcome != Outcome::Complete {
            // The upstream shall not go on with what nobody hears.
            drop(opened);
            self.finish(end, watch).await;
            return None;
        }
        self.finish(end, watch).await;
        let _ = tokio::time::timeout(LAST_BYTES_WAIT, self.pass_mark(&mut opened)).await;
        self.dialect.into_said()
    }

    /// Waits for the end of the connection. Some servers put a mark after the last event of a response: it passes too.
    async fn pass_mark(&mut self, opened: &mut Opened) {
        let has_mark = self.endpoint == Endpoint::Responses;
        let is_mark = |event: &Event| has_mark && event.data.as_deref().is_some_and(is_done);
        let mut is_open = true;
        while is_open {
            while let Ok(Some(event)) = self.parser.next_event() {
                if is_mark(&event) {
                    let _ = self.caller.send(event.raw).await;
                }
            }
            match opened.chunk().await {
                Ok(Some(bytes)) if has_mark => self.parser.push(&bytes),
                Ok(Some(_)) => {}
                _ => is_open = false,
            }
        }
        if let Some(event) = self.parser.finish().filter(is_mark) {
            let _ = self.caller.send(event.raw).await;
        }
    }

    async fn finish(&mut self, end: End, watch: &mut Watch) {
        let status = if end.outcome == Outcome::ClientGone { 499 } else { 200 };
        if let Err(error) = self.held.settle(&mut self.meter, status, end.outcome).await {
            tracing::error!(?error, "a stream could not be settled");
        }
        if end.outcome == Outcome::ClientGone {
            return;
        }
        self.waiting.push_back(end.last);
        let waiting = std::mem::take(&mut self.waiting);
        let caller = self.caller.clone();
        let send_all = async {
            for piece in waiting.into_iter().filter(|piece| !piece.is_empty()) {
                if caller.send(piece).await.is_err() {
                    break;
                }
            }
        };
        // A caller that does not listen must not keep the program from ending.
        tokio::select! {
            _ = tokio::time::timeout(PATIENCE, send_all) => {}
            () = async {
                stopped(&mut watch.stop).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            } => {}
        }
    }

    async fn pass(&mut self, opened: &mut Opened, watch: &mut Watch) -> End {
        let mut checkpoint = Instant::now();
        let mut taken = Instant::now();
        let end = |outcome| End { outcome, last: Bytes::new() };
        let caller = self.caller.clone();
        loop {
            tokio::select! {
                () = caller.closed() => return end(Outcome::ClientGone),
                () = stopped(&mut watch.stop) => return self.broken(Outcome::Stopped),
                _ = watch.ticks.tick() => {
                    if !watch.is_allowed().await {
                        return self.broken(Outcome::CredentialEnded);
                    }
                    if checkpoint.elapsed() >= CHECKPOINT_EVERY {
                        checkpoint = Instant::now();
                        let said = self.meter.count();
                        self.held.checkpoint(said).await;
                    }
                    if !self.waiting.is_empty() && taken.elapsed() > PATIENCE {
                        return end(Outcome::ClientGone);
                    }
                }
                place = caller.reserve(), if !self.waiting.is_empty() => {
                    let Ok(place) = place else { return end(Outcome::ClientGone) };
                    if let Some(piece) = self.waiting.pop_front() {
                        place.send(piece);
                    }
                    taken = Instant::now();
                }
                chunk = opened.chunk(), if self.waiting.is_empty() => {
                    taken = Instant::now();
                    let end = self.take(chunk);
                    if self.dialect.has_said {
                        opened.note_said();
                    }
                    if let Some(end) = end {
                        return end;
                    }
                }
            }
        }
    }

    /// Takes what came from the upstream; tells whether that was the end.
    fn take(&mut self, chunk: Result<Option<Bytes>, Fault>) -> Option<End> {
        match chunk {
            Ok(Some(bytes)) => {
                self.parser.push(&bytes);
                loop {
                    match self.parser.next_event() {
                        Ok(Some(event)) => {
                            if let Some(end) = self.hear(event) {
                                return Some(end);
                            }
                        }
                        Ok(None) => return None,
                        Err(_) => return Some(self.broken(Outcome::UpstreamBroke)),
                    }
                }
            }
            // An end without a last event is one all the same.
            Ok(None) => {
                let rest = self.parser.finish();
                let ended = rest.and_then(|event| self.hear(event));
                Some(ended.unwrap_or(End { outcome: Outcome::Complete, last: Bytes::new() }))
            }
            Err(fault) => {
                tracing::warn!(upstream = self.held.upstream.as_deref(), ?fault, "a stream broke off");
                Some(self.broken(Outcome::UpstreamBroke))
            }
        }
    }

    fn hear(&mut self, event: Event) -> Option<End> {
        let verdict = match &event.data {
            Some(data) => self.dialect.read(data, &mut self.meter),
            None => Verdict::Pass,
        };
        // What is no line of an event is delivered like one.
        self.dialect.say(0, &strays(&event.raw), &mut self.meter);
        if self.dialect.has_said && self.held.first_token.is_none() {
            self.held.first_token = Some(self.held.elapsed());
        }
        if self.held.grant.is_limited {
            let prompt = self.held.facts.estimate.count;
            if self.meter.passes(self.held.allowance()) {
                // Whatever the upstream says that it was, what was passed on is what stood before this event.
                self.meter.usage = None;
                let last = Bytes::from(self.dialect.cut(prompt, self.meter.count()));
                return Some(End { outcome: Outcome::CutAtHold, last });
            }
        }
        match verdict {
            Verdict::Pass => self.waiting.push_back(event.raw),
            Verdict::Hide => {}
            Verdict::Last => return Some(End { outcome: Outcome::Complete, last: event.raw }),
        }
        None
    }

    /// The end of an answer that someone other than the model brought about.
    fn broken(&self, outcome: Outcome) -> End {
        let (code, message) = match outcome {
            Outcome::CredentialEnded => ("credential_ended", "the credential of this call has ended"),
            Outcome::Stopped => ("stopping", "the server is stopping; ask again in a moment"),
            _ => ("upstream_broken", "the model's server broke off"),
        };
        End { outcome, last: Bytes::from(self.dialect.failure(code, message)) }
    }
}
