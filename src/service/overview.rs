//! Figures over all users, for whoever runs the box.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::quota::Policy;
use crate::domain::calendar::Day;
use crate::domain::gateway::figures::Figures;
use crate::domain::ledger::{ResourceType, Window};
use crate::domain::overview::{RefusalCount, Sizes, UpstreamFigures, UserTotal};
use crate::domain::page::Page;
use crate::domain::unit::DAY_MS;
use crate::domain::{Error, Result};
use crate::store::{Reader, auth, gateway, overview as store};

/// The box at a glance.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Users: all, enabled, administrators.
    pub users: (i64, i64, i64),
    /// Sum of each resource over the days asked for, the level for a level; in the order of `ResourceType::ALL`.
    pub totals: Vec<(ResourceType, i64)>,
    /// Who used most of each resource.
    pub top_users: Vec<UserTotal>,
    /// Refused writes of those days by user, resource and hour, newest first.
    pub refusals: Vec<RefusalCount>,
    /// The upstreams of the gateway: those of the configuration in its order, then others that were asked in those days.
    pub upstreams: Vec<UpstreamFigures>,
    /// Sizes.
    pub sizes: Sizes,
}

/// Users named for each resource.
const TOP_USERS: i64 = 10;
/// Most rows of recent refusals.
const REFUSALS: i64 = 100;

/// Reads the figures of the last `days` days. `upstreams` are those of the configuration.
///
/// # Errors
/// Where the store cannot be read.
pub fn overview(reader: &Reader<'_>, policy: &Policy, days: i32, upstreams: &[Arc<str>]) -> Result<Overview> {
    let today = policy.calendar.day_of(reader.now());
    let range = today.plus(1 - days)..=today;
    let mut totals = Vec::new();
    let mut top_users = Vec::new();
    for resource in ResourceType::ALL {
        let total = match resource.window() {
            Window::Level => store::storage_level(reader)?,
            Window::Day | Window::Month => store::total(reader, resource, &range)?,
        };
        totals.push((resource, total));
        top_users.extend(store::top_users(reader, resource, &range, TOP_USERS)?);
    }
    let since = policy.calendar.end_of(range.start().plus(-1));
    Ok(Overview {
        users: auth::count_users(reader)?,
        totals,
        top_users,
        refusals: store::recent_refusals(reader, since, REFUSALS)?,
        upstreams: upstream_figures(reader, &range, upstreams)?,
        sizes: store::sizes(reader)?,
    })
}

/// What came of the attempts at each upstream in `days`, the last of which is today.
fn upstream_figures(
    reader: &Reader<'_>,
    days: &RangeInclusive<Day>,
    configured: &[Arc<str>],
) -> Result<Vec<UpstreamFigures>> {
    let empty = |name: &str, is_configured| UpstreamFigures {
        name: name.to_owned(),
        is_configured,
        today: Figures::default(),
        all: Figures::default(),
    };
    let mut list: Vec<_> = configured.iter().map(|name| empty(name, true)).collect();
    for (day, name, figures) in gateway::list_figures(reader, days)? {
        if !list.iter().any(|upstream| upstream.name == name) {
            list.push(empty(&name, false));
        }
        for upstream in list.iter_mut().filter(|upstream| upstream.name == name) {
            upstream.all.add(&figures);
            if day == *days.end() {
                upstream.today.add(&figures);
            }
        }
    }
    Ok(list)
}

/// What the box does today.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    /// Tokens of today, all users together.
    pub tokens_today: i64,
    /// Tokens of the day before.
    pub tokens_yesterday: i64,
    /// Agent minutes of this month.
    pub minutes_this_month: i64,
    /// Refused writes of the last 24 hours, and of how many users.
    pub refusals: (i64, i64),
}

/// Reads the figures of today.
///
/// # Errors
/// Where the store cannot be read.
pub fn glance(reader: &Reader<'_>, policy: &Policy) -> Result<Glance> {
    let today = policy.calendar.day_of(reader.now());
    let yesterday = today.plus(-1);
    Ok(Glance {
        tokens_today: store::total(reader, ResourceType::LlmTokens, &(today..=today))?,
        tokens_yesterday: store::total(reader, ResourceType::LlmTokens, &(yesterday..=yesterday))?,
        minutes_this_month: store::total(reader, ResourceType::AgentMinutes, &today.month())?,
        refusals: store::count_refusals(reader, reader.now().plus_millis(-DAY_MS))?,
    })
}

/// A page of what users used in `days`, a row a user and resource.
///
/// # Errors
/// `Invalid` for a cursor that no page gave.
pub fn totals(
    reader: &Reader<'_>,
    days: &RangeInclusive<Day>,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<UserTotal>> {
    let parse = |text: &str| {
        let (user, resource) = text.split_once('-')?;
        Some((i64::from_str_radix(user, 16).ok()?, resource.parse().ok()?))
    };
    let after = cursor.map(|text| parse(text).ok_or_else(|| Error::invalid("cursor", "is not one of ours")));
    let rows = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = store::totals_by_user(reader, days, after.transpose()?, rows)?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).map(|((user, resource), _)| format!("{user:x}-{resource}"));
    Ok(Page { items: rows.into_iter().map(|(_, total)| total).collect(), next })
}
