//! The description of the API, for people.

use maud::{Markup, html};

use super::layout::{brand, page};

/// All of it.
#[derive(Debug)]
pub struct Docs {
    /// What holds for every call.
    pub about: Vec<String>,
    /// How a caller proves who it is: name and meaning.
    pub credentials: Vec<(String, String)>,
    /// The calls under their headings.
    pub groups: Vec<Group>,
    /// The kinds of failure.
    pub failures: Vec<Failure>,
}

/// A heading and its calls.
#[derive(Debug)]
pub struct Group {
    /// The heading.
    pub name: String,
    /// Where a link to it leads.
    pub anchor: String,
    /// What there is to know of all of them.
    pub about: Vec<String>,
    /// The calls.
    pub calls: Vec<Call>,
}

/// A call.
#[derive(Debug)]
pub struct Call {
    /// Where a link to it leads.
    pub anchor: String,
    /// `GET` and so on.
    pub method: String,
    /// The path with its parameters in braces.
    pub path: String,
    /// Whether it answers under `/api` too.
    pub has_twin: bool,
    /// What it does, in few words.
    pub summary: String,
    /// What there is to know.
    pub about: Vec<String>,
    /// Of the path, the query and the headers.
    pub parameters: Vec<Field>,
    /// Media types of the body.
    pub media: Vec<String>,
    /// Whether nothing may be sent instead of a body.
    pub body_may_be_absent: bool,
    /// The fields of the body.
    pub body: Vec<Field>,
    /// A body.
    pub example: Option<String>,
    /// The answers.
    pub replies: Vec<Reply>,
    /// How it fails: status and meaning.
    pub failures: Vec<(String, String)>,
}

/// A field or a parameter.
#[derive(Debug)]
pub struct Field {
    /// Its path.
    pub name: String,
    /// Whether it must be there.
    pub is_required: bool,
    /// Kind and bounds, in words.
    pub kind: String,
    /// What it means.
    pub about: String,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: String,
    /// What it means.
    pub meaning: String,
    /// The fields of its body.
    pub fields: Vec<Field>,
    /// Bodies by media type.
    pub examples: Vec<(String, String)>,
}

/// A kind of failure.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub status: String,
    /// What it means.
    pub meaning: String,
    /// A body.
    pub example: String,
}

impl Docs {
    /// The page.
    pub fn render(&self) -> Markup {
        let body = html! {
            a.skip href="#main" { "Skip to content" }
            header.margin { div.margin-in {
                (brand())
                nav.nav.nav-docs aria-label="On this page" { ul {
                    @for group in &self.groups { li { a href={ "#" (group.anchor) } { (group.name) } } }
                    li { a href="#failures" { "Failures" } }
                } }
                div.who { a href="/openapi.json" { "OpenAPI 3.1" } }
            } }
            main id="main" tabindex="-1" { div.wrap.docs {
                div.page-head { div {
                    h1 { "API" }
                    p { "The same as a document for programs: " a href="/openapi.json" { "/openapi.json" } }
                } }
                @for paragraph in &self.about { p.docs-text { (prose(paragraph)) } }
                dl.facts.facts-ruled.docs-facts {
                    @for (name, meaning) in &self.credentials { div { dt { (name) } dd { (prose(meaning)) } } }
                }
                @for group in &self.groups { (group.render()) }
                (self.render_failures())
            } }
            footer.foot { span { "Tallybox " (env!("CARGO_PKG_VERSION")) } }
        };
        page("API", "app", &body)
    }

    fn render_failures(&self) -> Markup {
        html! {
            section.section aria-labelledby="failures" {
                div.section-head { h2 id="failures" { "Failures" } }
                @for failure in &self.failures {
                    details.call {
                        summary { code.call-method { (failure.status) } span.call-says { (prose(&failure.meaning)) } }
                        (code(&failure.example))
                    }
                }
            }
        }
    }
}

impl Group {
    fn render(&self) -> Markup {
        html! {
            section.section aria-labelledby=(self.anchor) {
                div.section-head { h2 id=(self.anchor) { (self.name) } }
                @for paragraph in &self.about { p.docs-text { (prose(paragraph)) } }
                @for call in &self.calls { (call.render()) }
            }
        }
    }
}

impl Call {
    fn render(&self) -> Markup {
        html! {
            details.call id=(self.anchor) {
                summary {
                    code.call-method { (self.method) }
                    code.call-path { (breakable(&self.path)) }
                    span.call-says { (self.summary) }
                }
                @for paragraph in &self.about { p.docs-text { (prose(paragraph)) } }
                @if self.has_twin { p.docs-text { "Also at " code { (breakable(&format!("/api{}", self.path))) } "." } }
                @if !self.parameters.is_empty() { h3 { "Parameters" } (fields(&self.parameters)) }
                @if let Some(example) = &self.example {
                    h3 { "Body" }
                    p.docs-text { (self.media.join(", ")) @if self.body_may_be_absent { "; or nothing at all" } }
                    @if !self.body.is_empty() { (fields(&self.body)) }
                    (code(example))
                }
                h3 { "Answers" }
                @for reply in &self.replies { (reply.render()) }
                @if !self.failures.is_empty() {
                    h3 { "Failures" }
                    dl.facts.docs-facts {
                        @for (status, meaning) in &self.failures { div { dt { (status) } dd { (prose(meaning)) } } }
                    }
                }
            }
        }
    }
}

impl Reply {
    fn render(&self) -> Markup {
        html! {
            p.docs-text { b { (self.status) } " " (prose(&self.meaning)) }
            @if !self.fields.is_empty() { (fields(&self.fields)) }
            @for (media, example) in &self.examples {
                @if media != "application/json" { p.docs-text { (media) } }
                (code(example))
            }
        }
    }
}

/// Fields, each a row of its name, its kind and its meaning.
fn fields(fields: &[Field]) -> Markup {
    html! {
        dl.docs-fields {
            @for field in fields {
                div {
                    dt { code { (breakable(&field.name)) } @if field.is_required { span.muted { " required" } } }
                    dd { span.muted { (prose(&field.kind)) } @if !field.about.is_empty() { br; (prose(&field.about)) } }
                }
            }
        }
    }
}

/// A body, which is wider than a phone at times and can be reached by keyboard then.
fn code(text: &str) -> Markup {
    html! { pre.docs-code tabindex="0" role="group" aria-label="Example" { code { (text) } } }
}

/// Text in which what stands between backticks is code.
fn prose(text: &str) -> Markup {
    html! {
        @for (index, piece) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (piece) } } @else { (piece) }
        }
    }
}

/// A path that may break after its strokes and dots, rather than anywhere.
fn breakable(path: &str) -> Markup {
    html! { @for piece in path.split_inclusive(['/', '.']) { (piece) wbr; } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code_and_all_else_text() {
        assert_eq!(prose("a `b<c` d").into_string(), "a <code>b&lt;c</code> d");
    }
}
