//! The pages of whoever runs the box: the whole at a glance, the audit log. What belongs to one user stands in `user.rs`.

mod user;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::{Administrator, page, see, who};
use crate::domain::Result;
use crate::domain::audit::ActFilter;
use crate::domain::auth::User;
use crate::domain::ledger::ResourceType;
use crate::domain::page::Paging;
use crate::domain::quota::{Holder, Standing};
use crate::service::auth::account;
use crate::service::{audit as acts, overview as figures, quota};
use crate::store::Reader;
use crate::view::admin::{self as view, AdminPage, Search, System, Totals, audit::AuditPage};
use crate::view::layout::Frame;
use crate::web::admin::user::take_filter;
use crate::web::extract::Query;
use crate::web::input;
use crate::web::problem::Answer;
use crate::web::state::AppState;
pub(in crate::web) use user::{
    back_to_user, change_user, confirm_erasure, correct_ledger, create_user, erase_user, new_user, reset_password,
    revoke_token, user,
};

/// Days that top users, upstreams and refusals look back.
const DAYS: i32 = 30;
/// Users of a page.
const USERS: usize = 25;
/// Acts of a page.
const ACTS: usize = 50;
/// Characters of a word that a page says what was done by.
const WORD: std::ops::RangeInclusive<usize> = 1..=32;

/// Addresses, words and `rel` of the pages beside one of a list: the first where this is not it, and the next.
type Pages = Vec<(String, &'static str, &'static str)>;

/// The pages beside one of a list that is asked for with `query` and may begin at `cursor`.
fn pages(path: &str, query: &[(&str, &str)], cursor: (&str, &str), next: Option<&str>, anchor: &str) -> Pages {
    let address = |cursor: Option<(&str, &str)>| {
        let pairs: Vec<_> = query.iter().copied().filter(|(_, value)| !value.is_empty()).chain(cursor).collect();
        let query = serde_urlencoded::to_string(pairs).unwrap_or_default();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{path}{mark}{query}{anchor}")
    };
    let (name, here) = cursor;
    let first = (!here.is_empty()).then(|| (address(None), "Newest", "first"));
    let next = next.map(|next| (address(Some((name, next))), "Older", "next"));
    first.into_iter().chain(next).collect()
}

/// How each resource stands for a user.
fn standings(reader: &Reader<'_>, policy: &quota::Policy, holder: Holder<'_>) -> Result<Vec<Standing>> {
    ResourceType::ALL.into_iter().map(|resource| quota::standing_now(reader, policy, holder, resource)).collect()
}

/// `GET /admin`
pub(in crate::web) async fn overview(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    query: Query,
) -> Answer {
    let mut fields = query.0;
    fields.drop_blank();
    let done = fields.optional("done", input::text(WORD));
    let search = Search {
        text: fields.peek("q"),
        tier: fields.peek("tier"),
        role: fields.peek("role"),
        disabled: fields.peek("disabled"),
    };
    let cursor = fields.peek("cursor");
    let (filter, paging) = take_filter(fields, USERS)?;
    let (policy, upstreams) = (state.quota.clone(), state.upstreams.names());
    let read = state.read(&known, move |reader, caller| {
        let page = account::list(reader, &filter, paging)?;
        let with_standings = |user: User| {
            let standings = standings(reader, &policy, user.holder())?;
            Ok((user, standings))
        };
        let users: Vec<_> = page.items.into_iter().map(with_standings).collect::<Result<_>>()?;
        let overview = figures::overview(reader, &policy, DAYS, &upstreams)?;
        Ok((who(caller), reader.now(), users, page.next, figures::glance(reader, &policy)?, overview))
    });
    let (visitor, now, users, next, glance, overview) = read.await?;
    let storage = overview.totals.iter().find(|(resource, _)| *resource == ResourceType::MemoryStorage);
    let asked =
        [("q", &*search.text), ("tier", &*search.tier), ("role", &*search.role), ("disabled", &*search.disabled)];
    let markup = view::overview(&AdminPage {
        frame: Frame { who: &visitor, now, zone: state.quota.calendar.zone_name() },
        done: (done.as_deref() == Some("erased")).then_some("The user was erased."),
        totals: Totals {
            users: overview.users,
            tokens: (glance.tokens_today, glance.tokens_yesterday),
            memory_bytes: storage.map_or(0, |(_, bytes)| *bytes),
            minutes: glance.minutes_this_month,
            refusals: glance.refusals,
        },
        search: &search,
        users: &users,
        pages: &pages("/admin", &asked, ("cursor", &cursor), next.as_deref(), "#h-users"),
        top_users: &overview.top_users,
        refusals: &overview.refusals,
        upstreams: &overview.upstreams,
        days: DAYS,
        system: System {
            version: crate::VERSION,
            started_at: state.started_at,
            schema: i64::from(crate::store::SCHEMA_VERSION),
            sizes: overview.sizes,
            log_bytes: state.store.log_bytes(),
            tiers: &state.quota.tiers,
        },
    });
    Ok(page(StatusCode::OK, markup))
}

/// `GET /admin/users`: where the answer to the form for a new user is opened anew, the list of all.
pub(in crate::web) async fn back(_: Administrator) -> Response {
    see("/admin")
}

/// `GET /admin/audit`
pub(in crate::web) async fn audit(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    query: Query,
) -> Answer {
    let mut fields = query.0;
    fields.drop_blank();
    let (text, action, cursor) = (fields.peek("q"), fields.peek("action"), fields.peek("cursor"));
    let filter = ActFilter {
        text: fields.optional("q", input::text(1..=254)),
        action: fields.optional("action", input::text(1..=64)),
    };
    let from = fields.optional("cursor", input::text(1..=255));
    let paging = fields.absorb(Paging::new(ACTS, from.as_deref()))?;
    let paging = fields.finish(|| paging)?;
    let read =
        state.read(&known, move |reader, caller| Ok((who(caller), reader.now(), acts::list(reader, &filter, paging)?)));
    let (visitor, now, found) = read.await?;
    let asked = [("q", text.as_str()), ("action", action.as_str())];
    let markup = view::audit::audit(&AuditPage {
        frame: Frame { who: &visitor, now, zone: state.quota.calendar.zone_name() },
        text: &text,
        action: &action,
        acts: &found.items,
        pages: &pages("/admin/audit", &asked, ("cursor", &cursor), found.next.as_deref(), ""),
    });
    Ok(page(StatusCode::OK, markup))
}
