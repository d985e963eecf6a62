//! `GET /memory/export`: page by page, each read on a snapshot of its own, so that no long reader holds the log.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use hyper::body::Frame;

use super::parse;
use super::places::Place;
use crate::domain::memory::Filter;
use crate::domain::unit::MemoryId;
use crate::domain::{Error, Result};
use crate::service::memory::{self, Page};
use crate::web::extract::Query;
use crate::web::problem::Answer;
use crate::web::state::{AppState, Known};

/// `GET /memory/export`
pub(in crate::web) async fn export(State(state): State<AppState>, known: Known, query: Query) -> Answer {
    let (filter, embeddings) = parse::export(query)?;
    let place = state.exports.begin(known.caller().user.key)?;
    let export = Export { state, known, filter, embeddings, _place: place };
    // What can be refused is refused before the answer begins.
    let first = export.page(None).await?;
    let body = Body::new(Lines::beginning(export, first));
    let headers =
        [(CONTENT_TYPE, "application/x-ndjson"), (CONTENT_DISPOSITION, "attachment; filename=\"memories.jsonl\"")];
    let response: Response = (headers, body).into_response();
    Ok(response)
}

struct Export {
    state: AppState,
    known: Known,
    filter: Filter,
    embeddings: bool,
    /// Taken until the last page is made.
    _place: Place,
}

impl Export {
    async fn page(&self, after: Option<MemoryId>) -> Result<Page> {
        if *self.state.calls.stopping().borrow() {
            return Err(Error::Unavailable("the server is stopping".to_owned()));
        }
        let (filter, embeddings) = (self.filter.clone(), self.embeddings);
        let read = self
            .state
            .read(&self.known, move |reader, caller| memory::page(reader, &caller.user, &filter, after, embeddings));
        read.await
    }
}

type Next = Pin<Box<dyn Future<Output = (Export, Result<Page>)> + Send>>;

/// The body: the page that is there, and the read of the next one. A read that fails breaks the answer off, so that nobody
/// takes a part for the whole.
struct Lines {
    ready: Option<Bytes>,
    next: Option<Next>,
}

impl Lines {
    fn beginning(export: Export, first: Page) -> Self {
        let mut lines = Self { ready: None, next: None };
        lines.take(export, first);
        lines
    }

    fn take(&mut self, export: Export, page: Page) {
        self.ready = Some(Bytes::from(page.lines)).filter(|lines| !lines.is_empty());
        self.next = page.next.map(|last| -> Next {
            Box::pin(async move {
                let page = export.page(Some(last)).await;
                (export, page)
            })
        });
    }
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(lines) = self.ready.take() {
                return Poll::Ready(Some(Ok(Frame::data(lines))));
            }
            let Some(next) = self.next.as_mut() else { return Poll::Ready(None) };
            let (export, page) = ready!(next.as_mut().poll(context));
            self.next = None;
            match page {
                Ok(page) => self.take(export, page),
                Err(error) => {
                    tracing::warn!(?error, "an export broke off");
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
