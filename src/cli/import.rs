//! `tallybox import`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use tallybox::adapter::embedder::{EmbedderPool, from_config};
use tallybox::domain::Result;
use tallybox::domain::auth::{Caller, parse_email};
use tallybox::domain::memory::transfer::{Batch, Format, Item, Records, Report, Skipped, Terms};
use tallybox::domain::quota::Refusal;
use tallybox::service::auth::account::load_by_email;
use tallybox::service::memory::{Policy, Ready, adopt_model, described, keep, missing, patiently, ready};
use tallybox::service::quota;
use tallybox::store::Store;

use super::{Opened, Place, bar, output};

/// Lines that are read at once, in bytes.
const CHUNK_BYTES: usize = 1024 * 1024;
/// After how long a database that is busy is asked again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
pub(super) enum Command {
    /// Import memories for a user; what is there already is left as it is, so that the same command goes on where it ended
    Memories {
        /// File to read; - reads stdin
        file: PathBuf,
        /// E-mail address of the user whose they shall be
        #[arg(long, value_name = "E-MAIL")]
        user: String,
        /// What the file is: our own export, all memories of mem0 or a collection of Chroma as JSON, or the file of the
        /// MCP memory server
        #[arg(long, value_name = "FORMAT", default_value = "tallybox", value_parser = Format::ALL.map(Format::as_str))]
        format: String,
        /// Embeddings in the file are by this box's model: they are taken as they are
        #[arg(long)]
        embeddings: bool,
        /// Pass the user's limit: all is stored, and counted
        #[arg(long)]
        no_quota: bool,
    },
}

impl Command {
    pub(super) fn run(self, place: &Place) -> anyhow::Result<ExitCode> {
        let Self::Memories { file, user, format, embeddings, no_quota } = self;
        let email = parse_email(&user, "user")?;
        let format = Format::parse(&format).context("format: is not known")?;
        let opened = place.open()?;
        let user = opened.store.read_blocking(|reader| load_by_email(reader, &email))?;
        let mut input = Input::open(&file, format)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let done = runtime.block_on(async {
            let options = Options { email, embeddings, no_quota };
            let mut import = Import::new(opened, options, Caller::of_operator(user))?;
            let refused = import.run(&mut input).await;
            bar::end();
            import.print()?;
            let refused = refused.context("what was imported stays; the same command goes on")?;
            Ok::<_, anyhow::Error>(refused)
        });
        let Some((record, refusal)) = done? else { return Ok(ExitCode::SUCCESS) };
        output::note(format_args!("record {record}: {refusal}; what was imported stays"));
        Ok(ExitCode::FAILURE)
    }
}

struct Options {
    email: String,
    embeddings: bool,
    no_quota: bool,
}

struct Import {
    store: Store,
    policy: Policy,
    pool: EmbedderPool,
    text_bytes_max: usize,
    options: Options,
    caller: Caller,
    report: Report,
}

/// The record with which the import ends, since the quota refuses it.
type Refused = Option<(u64, Box<Refusal>)>;

impl Import {
    fn new(opened: Opened, options: Options, caller: Caller) -> anyhow::Result<Self> {
        let Opened { config, store } = opened;
        let pool = EmbedderPool::start(from_config(&config.embedding)?, config.embedding.queue)?;
        let quota = Arc::new(quota::Policy { tiers: config.tiers.clone(), calendar: config.calendar });
        let policy = Policy::new(&config.memory, quota);
        let text_bytes_max = config.memory.text_bytes_max;
        Ok(Self { store, policy, pool, text_bytes_max, options, caller, report: Report::default() })
    }

    async fn run(&mut self, input: &mut Input) -> anyhow::Result<Refused> {
        while let Some(mut records) = input.next(&mut self.report)? {
            loop {
                let terms = Terms {
                    now: self.store.clock().now(),
                    text_bytes_max: self.text_bytes_max,
                    embeddings: self.options.embeddings,
                    model: self.pool.model().to_owned(),
                };
                let Some(Batch { items, skipped }) = records.batch(&terms) else { break };
                self.report.skip_all(skipped);
                let refused = self.take(items).await?;
                let (done, total) = input.progress(&records);
                bar::show(done, total, format_args!("{} imported", self.report.imported));
                if refused.is_some() {
                    return Ok(refused);
                }
            }
        }
        Ok(None)
    }

    /// Embeds and writes a batch.
    async fn take(&mut self, items: Vec<(u64, Item)>) -> Result<Refused> {
        let before = items.len() as u64;
        let missing = self.store.read_blocking(|reader| missing(reader, &self.caller, items))?;
        self.report.already_there += before - missing.len() as u64;
        if missing.is_empty() {
            return Ok(None);
        }
        let cut = self.pool.cut(described(&missing)).await?;
        let made = self.pool.complete(self.caller.user.key, cut).await?;
        let batch = ready(missing, made, &mut self.report);
        self.write(Arc::new(batch)).await
    }

    async fn write(&mut self, batch: Arc<Vec<Ready>>) -> Result<Refused> {
        let written = patiently(TRY_AGAIN, || {
            let (policy, batch, model) = (self.policy.clone(), Arc::clone(&batch), self.pool.model().to_owned());
            let (email, no_quota) = (self.options.email.clone(), self.options.no_quota);
            self.store.write(move |writer| {
                // Both may have changed since the last batch.
                adopt_model(writer, &model)?;
                let user = load_by_email(writer, &email)?;
                let policy = if no_quota { policy.without_limits(&user.tier) } else { policy };
                keep(writer, &policy, &Caller::of_operator(user), &batch)
            })
        });
        Ok(written.await?.tell(&mut self.report))
    }

    fn print(&self) -> std::io::Result<()> {
        let Report { imported, already_there, skipped, skipped_count, .. } = &self.report;
        output::result(format_args!("imported {imported}, already there {already_there}, skipped {skipped_count}"))?;
        for Skipped { record, reason } in skipped {
            output::result(format_args!("  record {record}: {reason}"))?;
        }
        for (reason, count) in self.report.more_skipped() {
            output::result(format_args!("  {count} more: {reason}"))?;
        }
        Ok(())
    }
}

/// What is imported: lines, of which a piece at a time is in memory, or a document.
enum Input {
    Lines { format: Format, from: Box<dyn BufRead>, first: Vec<u8>, number: u64, read: u64, size: Option<u64> },
    Document(Option<Records>),
}

impl Input {
    fn open(file: &Path, format: Format) -> anyhow::Result<Self> {
        let is_stdin = file == Path::new("-");
        let name = || if is_stdin { "stdin".to_owned() } else { file.display().to_string() };
        let cannot = || format!("{} cannot be read", name());
        let (mut from, size): (Box<dyn BufRead>, Option<u64>) = if is_stdin {
            (Box::new(BufReader::new(stdin())), None)
        } else {
            let opened = File::open(file).with_context(cannot)?;
            let size = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
            (Box::new(BufReader::new(opened)), size)
        };
        // What is not blank tells what it is.
        let mut first = Vec::new();
        let mut begin = 0;
        while first.get(begin..).is_none_or(|line: &[u8]| line.trim_ascii().is_empty()) {
            begin = first.len();
            if from.read_until(b'\n', &mut first).with_context(cannot)? == 0 {
                break;
            }
        }
        if format.is_lines(&String::from_utf8_lossy(first.get(begin..).unwrap_or_default())) {
            return Ok(Self::Lines { format, from, first, number: 0, read: 0, size });
        }
        let mut text = first;
        from.read_to_end(&mut text).with_context(cannot)?;
        let text = String::from_utf8(text).ok().with_context(|| format!("{} is not UTF-8", name()))?;
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let records = Records::of_document(format, text).with_context(cannot)?;
        Ok(Self::Document(Some(records)))
    }

    /// The next piece; none at the end.
    fn next(&mut self, report: &mut Report) -> anyhow::Result<Option<Records>> {
        let (format, from, first, number, read) = match self {
            Self::Document(records) => return Ok(records.take()),
            Self::Lines { format, from, first, number, read, .. } => (*format, from, first, number, read),
        };
        let mut bytes = std::mem::take(first);
        while bytes.len() < CHUNK_BYTES && from.read_until(b'\n', &mut bytes).context("the input cannot be read")? > 0 {
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        *read += bytes.len() as u64;
        let begin = *number + 1;
        let mut text = String::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            *number += 1;
            if let Ok(line) = std::str::from_utf8(line) {
                text.push_str(line);
            } else {
                report.skip(Skipped { record: *number, reason: "the record: is not UTF-8".to_owned() });
                text.push('\n');
            }
        }
        Ok(Some(Records::of_lines(format, text, begin)))
    }

    /// How far the whole is, while `records` are read, and how far it goes where that is known.
    fn progress(&self, records: &Records) -> (u64, Option<u64>) {
        let (done, total) = records.progress();
        match self {
            Self::Document(_) => (done, Some(total)),
            Self::Lines { read, size, .. } => (read.saturating_sub(total.saturating_sub(done)), *size),
        }
    }
}
