//! What the page of memories is asked for, and the links that ask for more, for less, or for another part.

use crate::domain::memory::MemoryTier;

/// Where the page of memories is.
pub const PATH: &str = "/memories";

/// What is looked for, as it was typed; what is empty does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Find {
    /// A question or a few words.
    pub query: String,
    /// Any of these tiers.
    pub tiers: Vec<MemoryTier>,
    /// A type.
    pub kind: String,
    /// A tag.
    pub tag: String,
    /// A session.
    pub session: String,
    /// The first day, as `2025-11-24`.
    pub from: String,
    /// The last day.
    pub to: String,
}

/// Which part of what is found is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The beginning.
    #[default]
    First,
    /// Of a list: what was stored before the memory of this id.
    Older(String),
    /// Of a list: what was stored next after the memory of this id.
    Newer(String),
    /// Of a search: this page, from 2 on.
    Page(usize),
}

/// A filter in force: what it is called, its value, and what is asked without it.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Such as `tag`.
    pub name: &'static str,
    /// What it lets through.
    pub value: String,
    /// The link that drops it.
    pub without: String,
}

impl InForce {
    /// What is true of the memories that it lets through.
    pub(super) fn words(&self) -> &'static str {
        match self.name {
            "from" => "happened on or after",
            "to" => "happened on or before",
            "tier" => "is of the tier",
            "type" => "is of the type",
            "tag" => "has the tag",
            _ => "is of the session",
        }
    }
}

impl Find {
    /// What everything of one tag is asked with.
    pub fn of_tag(tag: &str) -> Self {
        Self { tag: tag.to_owned(), ..Self::default() }
    }

    /// What everything of one session is asked with.
    pub fn of_session(session: &str) -> Self {
        Self { session: session.to_owned(), ..Self::default() }
    }

    /// The address of a part of it.
    pub fn path(&self, part: &Part) -> String {
        let tiers = self.tiers.iter().map(|tier| ("tier", tier.as_str().to_owned()));
        let texts = [
            ("type", &self.kind),
            ("tag", &self.tag),
            ("session", &self.session),
            ("from", &self.from),
            ("to", &self.to),
        ];
        let part = match part {
            Part::First => None,
            Part::Older(id) => Some(("cursor", id.clone())),
            Part::Newer(id) => Some(("newer", id.clone())),
            Part::Page(number) => Some(("page", number.to_string())),
        };
        let pairs = std::iter::once(("q", self.query.clone()))
            .chain(tiers)
            .chain(texts.into_iter().map(|(name, value)| (name, value.clone())))
            .chain(part)
            .filter(|(_, value)| !value.is_empty());
        address(PATH, pairs)
    }

    /// What is asked for without any filter.
    #[must_use]
    pub fn without_filters(&self) -> Self {
        Self { query: self.query.clone(), ..Self::default() }
    }

    /// The filters in force.
    pub fn in_force(&self) -> Vec<InForce> {
        let mut found = Vec::new();
        let mut note = |name, value: String, without: Self| {
            if !value.is_empty() {
                found.push(InForce { name, value, without: without.path(&Part::First) });
            }
        };
        let tiers: Vec<&str> = self.tiers.iter().map(|tier| tier.as_str()).collect();
        note("tier", tiers.join(" or "), Self { tiers: Vec::new(), ..self.clone() });
        note("type", self.kind.clone(), Self { kind: String::new(), ..self.clone() });
        note("tag", self.tag.clone(), Self { tag: String::new(), ..self.clone() });
        note("session", self.session.clone(), Self { session: String::new(), ..self.clone() });
        note("from", self.from.clone(), Self { from: String::new(), ..self.clone() });
        note("to", self.to.clone(), Self { to: String::new(), ..self.clone() });
        found
    }
}

/// `path` with a query of `pairs`.
fn address(path: &str, pairs: impl Iterator<Item = (&'static str, String)>) -> String {
    let pairs: Vec<_> = pairs.collect();
    match serde_urlencoded::to_string(&pairs) {
        Ok(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    }
}

/// The address of a memory's page, or of `act` on it, from which `back` leads back.
pub fn path_of(id: &impl ToString, act: &str, back: &str) -> String {
    let back = Some(("back", back.to_owned())).filter(|_| back != PATH);
    address(&format!("{PATH}/{}{act}", id.to_string()), back.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_is_a_link() {
        assert_eq!(Find::default().path(&Part::First), "/memories");
        let find = Find {
            query: "a & b".to_owned(),
            tiers: vec![MemoryTier::Short, MemoryTier::Long],
            tag: "x=y".to_owned(),
            ..Find::default()
        };
        assert_eq!(find.path(&Part::Page(2)), "/memories?q=a+%26+b&tier=stm&tier=ltm&tag=x%3Dy&page=2");
        let dropped: Vec<String> = find.in_force().into_iter().map(|filter| filter.without).collect();
        assert_eq!(dropped, ["/memories?q=a+%26+b&tag=x%3Dy", "/memories?q=a+%26+b&tier=stm&tier=ltm"]);
        assert_eq!(find.without_filters().path(&Part::First), "/memories?q=a+%26+b");
        assert_eq!(path_of(&7, "", "/memories?tag=a"), "/memories/7?back=%2Fmemories%3Ftag%3Da");
        assert_eq!(path_of(&7, "/delete", "/memories"), "/memories/7/delete");
    }
}
