//! `tallybox export`.

use std::io::{BufWriter, IsTerminal, Write, stdout};

use clap::Subcommand;
use tallybox::domain::auth::{User, UserFilter, parse_email};
use tallybox::domain::memory::Filter;
use tallybox::domain::page::Paging;
use tallybox::service::auth::account::{list, load_by_email};
use tallybox::service::memory::page;
use tallybox::store::Store;

use super::{Place, bar};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print memories, one JSON object a line
    Memories {
        /// E-mail address of the user whose memories are printed; by default all users'
        #[arg(long, value_name = "E-MAIL")]
        user: Option<String>,
        /// The form: JSON lines, which `tallybox import memories` reads
        #[arg(long, value_name = "FORMAT", default_value = "jsonl", value_parser = ["jsonl"])]
        format: String,
        /// With the embeddings of memories of a single window, so that an import need not make them again
        #[arg(long)]
        embeddings: bool,
    },
}

impl Command {
    pub(super) fn run(self, place: &Place) -> anyhow::Result<()> {
        let Self::Memories { user, format: _, embeddings } = self;
        let email = user.map(|user| parse_email(&user, "user")).transpose()?;
        let store = place.open()?.store;
        let mut export = Export { out: BufWriter::new(stdout().lock()), embeddings, count: 0 };
        match email {
            Some(email) => export.memories_of(&store, &store.read_blocking(|reader| load_by_email(reader, &email))?)?,
            None => export.memories_of_all(&store)?,
        }
        export.out.flush()?;
        export.end();
        Ok(())
    }
}

struct Export<W> {
    out: W,
    embeddings: bool,
    count: usize,
}

impl<W: Write> Export<W> {
    fn memories_of_all(&mut self, store: &Store) -> anyhow::Result<()> {
        let mut paging = Paging::first(100);
        loop {
            let users = store.read_blocking(|reader| list(reader, &UserFilter::default(), paging))?;
            for user in &users.items {
                self.memories_of(store, user)?;
            }
            let Some(next) = users.next else { return Ok(()) };
            paging = paging.after(&next)?;
        }
    }

    fn memories_of(&mut self, store: &Store, user: &User) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let page = store.read_blocking(|reader| page(reader, user, &Filter::default(), after, self.embeddings))?;
            self.out.write_all(page.lines.as_bytes())?;
            self.count += page.memories;
            if !stdout().is_terminal() {
                bar::show(0, None, format_args!("{} memories", self.count));
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn end(&self) {
        if self.count > 0 && !stdout().is_terminal() {
            bar::end();
        }
    }
}
