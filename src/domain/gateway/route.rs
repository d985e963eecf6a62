//! From a model's name to those who serve it.

use std::collections::BTreeMap;
use std::str::FromStr;

/// A pattern of model names: `*` stands for any characters, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl FromStr for Glob {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.is_empty() || text.chars().any(char::is_control) { Err(()) } else { Ok(Self(text.to_owned())) }
    }
}

impl Glob {
    /// Whether `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            // The first place is the best one: it leaves the most for those that follow.
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }

    /// The name, where it is no pattern but just that.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(self.0.as_str())
    }
}

/// Which upstreams serve which models.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// The patterns of each upstream, in the order in which they are tried.
    pub upstreams: Vec<Vec<Glob>>,
    /// Other names of models.
    pub aliases: BTreeMap<String, String>,
}

impl Routes {
    /// The name that the upstreams know `model` by.
    pub fn resolve<'m>(&'m self, model: &'m str) -> &'m str {
        self.aliases.get(model).map_or(model, String::as_str)
    }

    /// Those that serve the resolved `model`, by their place in the configuration.
    pub fn candidates(&self, model: &str) -> Vec<usize> {
        let serves = |globs: &Vec<Glob>| globs.iter().any(|glob| glob.matches(model));
        self.upstreams.iter().enumerate().filter(|(_, globs)| serves(globs)).map(|(place, _)| place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_everything_else_for_itself() {
        let matches = |glob: &str, name: &str| glob.parse::<Glob>().unwrap().matches(name);
        for (glob, name) in [
            ("*", ""),
            ("*", "x"),
            ("gpt-*", "gpt-"),
            ("gpt-*", "gpt-4o"),
            ("*-mini", "o3-mini"),
            ("a*b*c", "abbc"),
            ("a*b*c", "aXbYc"),
            ("a", "a"),
            ("a**", "a"),
        ] {
            assert!(matches(glob, name), "{glob} {name}");
        }
        for (glob, name) in [("gpt-*", "gpt"), ("a", "ab"), ("a", ""), ("a*a", "a"), ("a*b*c", "acb"), ("*b", "ba")] {
            assert!(!matches(glob, name), "{glob} {name}");
        }
    }

    #[test]
    fn candidates_come_in_the_order_of_the_configuration() {
        let globs = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Glob>>();
        let routes = Routes {
            upstreams: vec![globs(&["gpt-*"]), globs(&["llama*"]), globs(&["*"])],
            aliases: BTreeMap::from([("fast".to_owned(), "gpt-4o-mini".to_owned())]),
        };
        assert_eq!(routes.candidates(routes.resolve("fast")), [0, 2]);
        assert_eq!(routes.candidates("other"), [2]);
    }
}
