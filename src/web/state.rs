//! What every handler shares, and the two ways to the store that prove the caller afresh.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use uuid::Uuid;

use super::gateway::calls::Calls;
use super::memory::places::Places;
use super::metrics::Meters;
use super::openapi::Described;
use super::ops::Ready;
use crate::adapter::embedder::EmbedderPool;
use crate::adapter::upstream::Upstreams;
use crate::config::Config;
use crate::domain::auth::{Caller, Credential, Role, Scope, User, UserKey};
use crate::domain::ledger::ResourceType;
use crate::domain::quota::Refusal;
use crate::domain::unit::{Timestamp, UserId};
use crate::domain::{Error, Result};
use crate::lock::lock;
use crate::service::auth::attempts::Attempts;
use crate::service::auth::password::Passwords;
use crate::service::auth::{self, Authenticated, Identity, Policy, Presented};
use crate::service::{agent, memory, quota};
use crate::store::{Commit, Reader, Store, Writer};

/// Most callers remembered at once; more, and all are forgotten.
const CALLERS_REMEMBERED_MAX: usize = 10_000;

/// Bytes of the texts of a caller that is remembered: more than any that names someone, and fewer than fill the memory.
const REMEMBERED_BYTES_MAX: usize = 1_024;

/// What every handler shares, behind one count: a request takes it several times.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Shared>);

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What stands behind [`AppState`].
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) identity: Arc<Policy>,
    pub(crate) quota: Arc<quota::Policy>,
    pub(crate) agent: agent::Policy,
    pub(crate) memory: Arc<memory::Policy>,
    pub(crate) embedder: EmbedderPool,
    pub(crate) upstreams: Upstreams,
    pub(crate) calls: Calls,
    pub(super) imports: Places,
    pub(super) exports: Places,
    pub(crate) noted: Noted,
    pub(crate) meters: Meters,
    pub(crate) started_at: Timestamp,
    pub(crate) passwords: Passwords,
    pub(crate) attempts: Attempts,
    remembered: RwLock<HashMap<Presented, Remembered>>,
    pub(super) ready: Ready,
    /// The description of the API, made when it is first asked for: it never changes while the program runs.
    pub(super) described: OnceLock<Described>,
}

#[derive(Clone)]
struct Remembered {
    version: u64,
    authenticated: Arc<Authenticated>,
}

/// What requests leave behind for the worker to write down.
#[derive(Default)]
pub(crate) struct Noted {
    used: Mutex<HashMap<Credential, Timestamp>>,
    refusals: Mutex<HashMap<(UserKey, ResourceType, Timestamp), i64>>,
}

impl Noted {
    fn use_of(&self, credential: Credential, at: Timestamp) {
        if credential != Credential::Proxy {
            lock(&self.used).insert(credential, at);
        }
    }

    fn refusal(&self, user: UserKey, resource: ResourceType, at: Timestamp) {
        let mut refusals = lock(&self.refusals);
        *refusals.entry((user, resource, at.start_of_hour())).or_insert(0) += 1;
    }

    /// Takes back what could not be written down, for the next time.
    pub(crate) fn put_back(
        &self,
        used: &[(Credential, Timestamp)],
        refusals: &[((UserKey, ResourceType, Timestamp), i64)],
    ) {
        let mut now_used = lock(&self.used);
        for (credential, at) in used {
            now_used.entry(*credential).or_insert(*at);
        }
        let mut now_refused = lock(&self.refusals);
        for (refused, count) in refusals {
            *now_refused.entry(*refused).or_insert(0) += count;
        }
    }

    /// Takes which credentials were used, and when last.
    pub(crate) fn take_used(&self) -> Vec<(Credential, Timestamp)> {
        lock(&self.used).drain().collect()
    }

    /// Takes how often each user was refused each resource, by the hour (its first instant).
    pub(crate) fn take_refusals(&self) -> Vec<((UserKey, ResourceType, Timestamp), i64)> {
        lock(&self.refusals).drain().collect()
    }
}

/// A caller whom the route's guard let in.
#[derive(Clone)]
pub(crate) struct Known {
    presented: Arc<Presented>,
    authenticated: Arc<Authenticated>,
    version: u64,
    scope: Option<Scope>,
}

impl Known {
    /// SHA-256 of the bearer that was shown.
    pub(crate) fn bearer_hash(&self) -> Option<[u8; 32]> {
        self.presented.bearer.map(|bearer| bearer.hash)
    }

    /// The store's `auth_version` when the guard looked.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Whether the credential has ended by itself.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.authenticated.ends_at.is_some_and(|end| now >= end)
    }

    /// Who it was when the guard looked. What is read or written is decided by a look in its own transaction.
    pub(crate) fn caller(&self) -> &Caller {
        &self.authenticated.caller
    }
}

impl AppState {
    pub(crate) fn new(config: Arc<Config>, store: Store, embedder: EmbedderPool, upstreams: Upstreams) -> Result<Self> {
        let started_at = store.clock().now();
        let identity = Policy {
            auto_provision: config.auth.auto_provision,
            default_tier: config.auth.default_tier.clone(),
            tiers: config.tiers.clone(),
        };
        let quota = Arc::new(quota::Policy { tiers: config.tiers.clone(), calendar: config.calendar });
        let memory = memory::Policy::new(&config.memory, Arc::clone(&quota));
        let heartbeat_timeout_ms = config.heartbeat_timeout_ms;
        let agent = agent::Policy { quota: Arc::clone(&quota), heartbeat_timeout_ms };
        let passwords = Passwords::new(config.auth.password_queue);
        let meters = Meters::new(&store, &embedder, &upstreams)?;
        Ok(Self(Arc::new(Shared {
            config,
            store,
            identity: Arc::new(identity),
            agent,
            quota,
            started_at,
            memory: Arc::new(memory),
            embedder,
            upstreams,
            calls: Calls::default(),
            imports: Places::of_imports(),
            exports: Places::of_exports(),
            noted: Noted::default(),
            meters,
            passwords,
            attempts: Attempts::default(),
            remembered: RwLock::default(),
            ready: Ready::default(),
            described: OnceLock::new(),
        })))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    /// Lets a caller with `scope` in (none: any credential). A caller who was let in a moment ago is remembered, as a
    /// hint only: each transaction proves it again.
    pub(super) async fn admit(&self, presented: Presented, scope: Option<Scope>) -> Result<Known> {
        let version = self.store.auth_version();
        // What a remembered caller lacks it may have been given since, by the command line: then there is another look.
        let has_scope = |known: &Arc<Authenticated>| scope.is_none_or(|scope| known.caller.scopes.has(scope));
        if let Some(authenticated) = self.recall(&presented, version).filter(has_scope) {
            return self.admit_known(presented, authenticated, version, scope);
        }
        let presented = Arc::new(presented);
        let authenticated = match self.look(Arc::clone(&presented), scope).await? {
            Identity::Known(authenticated) => authenticated,
            Identity::ToProvision => {
                let (presented_again, policy) = (Arc::clone(&presented), Arc::clone(&self.identity));
                self.store.write(move |writer| auth::provision(writer, &presented_again, &policy)).await?;
                match self.look(Arc::clone(&presented), scope).await? {
                    Identity::Known(authenticated) => authenticated,
                    Identity::ToProvision => return Err(Error::Internal("a provisioned user is not there".to_owned())),
                }
            }
        };
        let authenticated = Arc::new(authenticated);
        self.remember(&presented, version, &authenticated);
        self.admit_known(Arc::unwrap_or_clone(presented), authenticated, version, scope)
    }

    /// Stands for a user that is not there, for a handler that shall look at the request alone: no transaction lets it pass.
    pub(super) fn nobody(&self, presented: Presented, scope: Option<Scope>) -> Known {
        let user = User {
            key: UserKey(0),
            id: UserId(Uuid::nil()),
            email: None,
            role: Role::User,
            tier: self.identity.default_tier.clone(),
            disabled_at: None,
            created_at: self.started_at,
        };
        let authenticated = Arc::new(Authenticated { caller: Caller::of_operator(user), ends_at: None });
        // A number that the commits never reach.
        Known { presented: Arc::new(presented), authenticated, version: u64::MAX, scope }
    }

    fn admit_known(
        &self,
        presented: Presented,
        authenticated: Arc<Authenticated>,
        version: u64,
        scope: Option<Scope>,
    ) -> Result<Known> {
        if let Some(scope) = scope {
            authenticated.caller.require(scope)?;
        }
        self.noted.use_of(authenticated.caller.credential, self.now());
        Ok(Known { presented: Arc::new(presented), authenticated, version, scope })
    }

    async fn look(&self, presented: Arc<Presented>, scope: Option<Scope>) -> Result<Identity> {
        let policy = Arc::clone(&self.identity);
        self.store.read(move |reader| auth::authenticate(reader, &presented, &policy, scope)).await
    }

    fn recall(&self, presented: &Presented, version: u64) -> Option<Arc<Authenticated>> {
        let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get(presented).filter(|found| found.version == version)?;
        let lives = found.authenticated.ends_at.is_none_or(|end| self.now() < end);
        lives.then(|| Arc::clone(&found.authenticated))
    }

    fn remember(&self, presented: &Presented, version: u64, authenticated: &Arc<Authenticated>) {
        if presented.text_bytes() > REMEMBERED_BYTES_MAX {
            return;
        }
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= CALLERS_REMEMBERED_MAX {
            remembered.clear();
        }
        let found = Remembered { version, authenticated: Arc::clone(authenticated) };
        remembered.insert(presented.clone(), found);
    }

    /// Whether what a caller has begun may go on.
    pub(crate) async fn stands(&self, known: &Known) -> Result<()> {
        let (presented, user) = (Arc::clone(&known.presented), known.caller().user.id);
        self.store.read(move |reader| auth::require_standing(reader, &presented, user)).await
    }

    /// Reads on a snapshot in which the caller is proved.
    pub(crate) async fn read<T, F>(&self, known: &Known, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>, &Caller) -> Result<T> + Send + 'static,
    {
        self.store.read(self.proved(known, work)).await
    }

    /// As [`AppState::read`], for what looks through the caller's memories.
    pub(crate) async fn search<T, F>(&self, known: &Known, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>, &Caller) -> Result<T> + Send + 'static,
    {
        self.store.search(known.caller().user.key, self.proved(known, work)).await
    }

    /// What proves the caller, and then does `work`.
    fn proved<T, F>(&self, known: &Known, work: F) -> impl FnOnce(&Reader<'_>) -> Result<T> + Send + use<T, F>
    where
        F: FnOnce(&Reader<'_>, &Caller) -> Result<T> + Send + 'static,
    {
        let (presented, policy, scope) = (Arc::clone(&known.presented), Arc::clone(&self.identity), known.scope);
        move |reader| {
            let caller = prove(reader, &presented, &policy, scope)?;
            auth::require_enabled(&caller)?;
            work(reader, &caller)
        }
    }

    /// Writes in a transaction in which the caller is proved.
    pub(crate) async fn write<T, F>(&self, known: &Known, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>, &Caller) -> Result<T> + Send + 'static,
    {
        self.write_even_if_disabled(known, |writer, caller| {
            auth::require_enabled(caller)?;
            work(writer, caller)
        })
        .await
    }

    /// As [`AppState::write`], for the one act that a trusted caller may do for a disabled user: resolving a hold.
    pub(crate) async fn write_even_if_disabled<T, F>(&self, known: &Known, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>, &Caller) -> Result<T> + Send + 'static,
    {
        let written = self.store.write(self.proving(known, work)).await;
        self.noting(known, written)
    }

    /// As [`AppState::write`], before the commit; see [`Store::write_ahead`].
    pub(super) async fn write_ahead<T, F>(&self, known: &Known, work: F) -> Result<(T, Commit)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>, &Caller) -> Result<T> + Send + 'static,
    {
        let work = self.proving(known, |writer, caller| {
            auth::require_enabled(caller)?;
            work(writer, caller)
        });
        let written = self.store.write_ahead(work).await;
        self.noting(known, written)
    }

    /// `work` for a caller who is proved in its transaction.
    fn proving<T, F>(&self, known: &Known, work: F) -> impl FnOnce(&mut Writer<'_>) -> Result<T> + Send + use<T, F>
    where
        F: FnOnce(&mut Writer<'_>, &Caller) -> Result<T> + Send + 'static,
    {
        let (known, policy) = (known.clone(), Arc::clone(&self.identity));
        move |writer| {
            let ends_at = known.authenticated.ends_at;
            if writer.auth_holds(known.version) && ends_at.is_none_or(|end| writer.now() < end) {
                return work(writer, &known.authenticated.caller);
            }
            let caller = prove(writer, &known.presented, &policy, known.scope)?;
            work(writer, &caller)
        }
    }

    fn noting<T>(&self, known: &Known, written: Result<T>) -> Result<T> {
        if let Err(Error::QuotaExceeded(refusal)) = &written {
            self.note_refusal(known, refusal);
        }
        written
    }

    /// Counts a refusal, for the worker to write down.
    pub(super) fn note_refusal(&self, known: &Known, refusal: &Refusal) {
        self.meters.count_refusal(refusal.resource);
        self.noted.refusal(known.caller().user.key, refusal.resource, self.now());
    }
}

fn prove(reader: &Reader<'_>, presented: &Presented, policy: &Policy, scope: Option<Scope>) -> Result<Caller> {
    let Identity::Known(authenticated) = auth::authenticate(reader, presented, policy, scope)? else {
        return Err(Error::NotFound("the user"));
    };
    Ok(authenticated.caller)
}
