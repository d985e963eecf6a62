//! Ten minutes at twice what the box can take: what is admitted stays quick, the rest is refused at once, and memory and log
//! stay bounded. The real binary with small queues, so that this machine can ask more of it than it gives.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]
#![expect(clippy::print_stdout, reason = "its figures are for people")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Threads that write, each one request after the other.
const CLIENTS: u64 = 48;
/// Of them only so many find a place at a time: those that wait and those of the commit under way.
const QUEUE: (u64, u64) = (16, 8);
/// How long who was refused waits before asking again.
const REFUSED_PAUSE: Duration = Duration::from_millis(4);
/// How often figures are told.
const PERIOD: Duration = Duration::from_secs(15);
/// Pages of the log before it is copied.
const CHECKPOINT_PAGES: u64 = 1_000;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was asked of the server since the figures were last told.
#[derive(Default)]
struct Asked {
    admitted_ms: Vec<f64>,
    refused_ms: Vec<f64>,
}

/// The figures of a period.
struct Figures {
    resident_kib: u64,
    log_bytes: u64,
    admitted: usize,
    refused: usize,
    admitted_p99_ms: f64,
}

fn tallybox(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallybox"));
    command
        .env_clear()
        .env("TALLYBOX_DATA_DIR", directory)
        .env("TALLYBOX_STORE__WRITE_QUEUE", QUEUE.0.to_string())
        .env("TALLYBOX_STORE__COMMIT_JOBS_MAX", QUEUE.1.to_string())
        .env("TALLYBOX_STORE__CHECKPOINT_PAGES", CHECKPOINT_PAGES.to_string())
        // What ten minutes store is more than any tier of the default settings may.
        .env("TALLYBOX_TIERS__PRO__MEMORY_STORAGE_BYTES", "1000000000000")
        .env("TALLYBOX_MEMORY__STM_BYTES_MAX", "1000000000000")
        .env("TALLYBOX_LOG__LEVEL", "error");
    command
}

fn output_of(directory: &Path, arguments: &[&str]) -> String {
    let output = tallybox(directory).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A connection that stays.
struct Caller<'t> {
    stream: BufReader<TcpStream>,
    token: &'t str,
}

impl<'t> Caller<'t> {
    fn connect(address: SocketAddr, token: &'t str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        Some(Self { stream: BufReader::new(stream), token })
    }

    /// The status of a call, and whether it says when to come again.
    fn call(&mut self, method: &str, path: &str, body: &str) -> Option<(u16, bool)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        self.stream.get_mut().write_all((head + body).as_bytes()).ok()?;
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let (mut length, mut says_when) = (0, false);
        loop {
            line.clear();
            if self.stream.read_line(&mut line).ok()? <= 2 {
                break;
            }
            let header = line.to_ascii_lowercase();
            says_when |= header.starts_with("retry-after:");
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        std::io::copy(&mut (&mut self.stream).take(length), &mut std::io::sink()).ok()?;
        Some((status, says_when))
    }
}

/// Writes of every kind, one after the other.
fn write_on(address: SocketAddr, token: &str, client: u64, stop: &AtomicBool, asked: &Mutex<Asked>) {
    let _stops = Stops(stop);
    let vector: Vec<String> = (0..384_u32).map(|number| format!("{:.3}", f64::from(number).sin())).collect();
    let mut caller = Caller::connect(address, token).unwrap();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (path, body) = match number % 20 {
            0 => {
                let text = format!("client {client} says {number}");
                let vector = vector.join(",");
                let body = format!(r#"{{"type":"t","tier":"stm","input_context":"{text}","embedding":[{vector}]}}"#);
                ("/memory/store", body)
            }
            1..=3 => ("/usage/reservations", r#"{"resourceType":"llm_tokens","amount":1,"ttlSeconds":5}"#.to_owned()),
            _ => ("/usage/record", r#"{"resourceType":"llm_tokens","amount":1}"#.to_owned()),
        };
        let begun = Instant::now();
        let (status, says_when) = caller.call("POST", path, &body).expect("an answer");
        let took = begun.elapsed().as_secs_f64() * 1_000.0;
        match status {
            201 => asked.lock().unwrap().admitted_ms.push(took),
            503 => {
                assert!(says_when, "a refusal does not say when to come again");
                asked.lock().unwrap().refused_ms.push(took);
                std::thread::sleep(REFUSED_PAUSE);
            }
            other => unreachable!("{path}: {other}"),
        }
    }
}

/// Reads all that there is, again and again.
fn read_on(address: SocketAddr, token: &str, stop: &AtomicBool) {
    let _stops = Stops(stop);
    let mut caller = Caller::connect(address, token).unwrap();
    while !stop.load(Ordering::Relaxed) {
        for path in ["/usage/stats?days=30", "/usage/ledger?limit=100", "/memory?limit=100"] {
            let (status, _) = caller.call("GET", path, "").expect("an answer");
            assert!(status == 200 || status == 503, "{path}: {status}");
        }
    }
}

/// Ends all other threads with this one, also where it fails: ten minutes without a client tell nothing.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Holds a snapshot for seconds at a time, as another program may.
#[expect(clippy::disallowed_methods, reason = "another program")]
fn hold_on(directory: &Path, stop: &AtomicBool) {
    let mut other = rusqlite::Connection::open(directory.join("tallybox.db")).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let snapshot = other.transaction().unwrap();
        snapshot.query_row("SELECT count(*) FROM users", [], |row| row.get::<_, i64>(0)).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        drop(snapshot);
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn percentile(times: &mut [f64], part: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() * part / 100).or(times.last()).copied().unwrap_or_default()
}

fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Tells the figures of each period until `time` is over, or `stop` is true.
fn tell(time: Duration, stop: &AtomicBool, process: u32, directory: &Path, asked: &Mutex<Asked>) -> Vec<Figures> {
    let begun = Instant::now();
    let mut told = Vec::new();
    println!("seconds  RSS MiB  log MiB  admitted/s  refused/s  p50 ms  p99 ms  refused p99 ms");
    while begun.elapsed() < time && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PERIOD.min(time));
        let Asked { mut admitted_ms, mut refused_ms } = std::mem::take(&mut *asked.lock().unwrap());
        let figures = Figures {
            resident_kib: resident_kib(process),
            log_bytes: std::fs::metadata(directory.join("tallybox.db-wal")).map_or(0, |log| log.len()),
            admitted: admitted_ms.len(),
            refused: refused_ms.len(),
            admitted_p99_ms: percentile(&mut admitted_ms, 99),
        };
        println!(
            "{:7} {:8} {:8} {:11} {:10} {:7.1} {:7.1} {:15.1}",
            begun.elapsed().as_secs(),
            figures.resident_kib / 1_024,
            figures.log_bytes >> 20,
            figures.admitted as u64 / PERIOD.as_secs(),
            figures.refused as u64 / PERIOD.as_secs(),
            percentile(&mut admitted_ms, 50),
            figures.admitted_p99_ms,
            percentile(&mut refused_ms, 99),
        );
        told.push(figures);
    }
    told
}

/// Runs shorter than so many periods say nothing of what grows slowly: caches still fill.
const PERIODS_LEAST: usize = 20;

/// Between the third and the last quarter nothing begins any more: what grows then grows for ever. A tenth of a KiB lost with
/// each request would be 60 MiB.
fn judge_growth(told: &[Figures]) {
    let quarter = told.len() / 4;
    let (before, last) = (&told[2 * quarter..3 * quarter], &told[told.len() - quarter..]);
    let resident = [before, last].map(|told| {
        let mut figures: Vec<u64> = told.iter().map(|figures| figures.resident_kib).collect();
        figures.sort_unstable();
        figures[figures.len() / 2]
    });
    let most = resident[0] + resident[0] / 20 + 8 * 1_024;
    assert!(resident[1] <= most, "memory is lost: {} KiB after {} KiB", resident[1], resident[0]);
    let waits = [before, last].map(|told| {
        let mut figures: Vec<f64> = told.iter().map(|figures| figures.admitted_p99_ms).collect();
        percentile(&mut figures, 50)
    });
    assert!(waits[1] <= 2.0 * waits[0] + 50.0, "what is admitted waits ever longer: {waits:?} ms");
}

/// Holds the figures against their bounds: those of the first quarter are how it begins, with caches that fill.
fn judge(told: &[Figures]) {
    let (first, rest) = told.split_at(told.len().div_ceil(4));
    let settled = first.iter().map(|figures| figures.resident_kib).max().unwrap();
    for figures in rest {
        assert!(figures.admitted > 0, "nothing was admitted for a whole period");
        // A tenth, and what the caches of five connections (32 MiB of who writes, 24 of each who reads) may still take in.
        let most = settled + settled / 10 + 128 * 1_024;
        assert!(figures.resident_kib <= most, "memory grows: {} KiB after {settled} KiB", figures.resident_kib);
        // Three commits, which are all that the queue holds, at a disk that is slow.
        assert!(figures.admitted_p99_ms < 500.0, "what is admitted waits: {} ms", figures.admitted_p99_ms);
        // Four times what is copied at once, and what is written while another program holds a snapshot.
        let most = 4 * CHECKPOINT_PAGES * 8_192 + (256 << 20);
        assert!(figures.log_bytes <= most, "the log grows: {} bytes", figures.log_bytes);
    }
    let (admitted, refused) =
        told.iter().fold((0, 0), |sum, figures| (sum.0 + figures.admitted, sum.1 + figures.refused));
    if told.len() >= PERIODS_LEAST {
        judge_growth(told);
    } else {
        println!("too short to say whether memory is lost: {} of {PERIODS_LEAST} periods", told.len());
    }
    println!("{admitted} admitted, {refused} refused");
    assert!(refused >= admitted, "the load was below twice what the box takes");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn at_twice_its_capacity_the_box_stays_quick_and_small() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(600, |seconds| seconds.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let directory = place.path();
    output_of(directory, &["user", "add", "a@example.org", "--tier", "pro"]);
    let token = output_of(directory, &["token", "create", "--user", "a@example.org", "--name", "soak"]);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = tallybox(directory);
    command.args(["serve", "--listen", &address.to_string()]).stdout(Stdio::null());
    let server = Server(command.spawn().unwrap());
    let begun = Instant::now();
    while Caller::connect(address, "").is_none_or(|mut caller| caller.call("GET", "/healthz", "").is_none()) {
        assert!(begun.elapsed() < Duration::from_mins(1), "the server does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (stop, asked) = (AtomicBool::new(false), Mutex::new(Asked::default()));
    let told = std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        let (stop, asked, token) = (&stop, &asked, token.as_str());
        for client in 0..CLIENTS {
            scope.spawn(move || write_on(address, token, client, stop, asked));
        }
        scope.spawn(move || read_on(address, token, stop));
        scope.spawn(move || hold_on(directory, stop));
        tell(Duration::from_secs(seconds), stop, server.0.id(), directory, asked)
    });
    judge(&told);
    drop(server);
    assert!(output_of(directory, &["check"]).starts_with("ok"));
}

#[test]
#[should_panic(expected = "memory is lost")]
fn a_run_that_loses_memory_slowly_is_judged_so() {
    judge(&run_of(|period| 200_000 + 3_000 * period, |_| 20.0));
}

#[test]
#[should_panic(expected = "waits ever longer")]
fn a_run_that_slows_down_is_judged_so() {
    judge(&run_of(|_| 200_000, |period| f64::from(period.pow(3)) / 120.0));
}

#[test]
fn a_run_whose_caches_fill_at_first_is_a_good_one() {
    judge(&run_of(|period| 200_000 + 10_000 * period.min(10), |period| if period % 7 == 0 { 300.0 } else { 20.0 }));
}

/// Figures of forty periods.
fn run_of(resident_kib: fn(u64) -> u64, admitted_p99_ms: fn(u32) -> f64) -> Vec<Figures> {
    let figures = |period: u32| Figures {
        resident_kib: resident_kib(u64::from(period)),
        log_bytes: 1 << 20,
        admitted: 1_000,
        refused: 2_000,
        admitted_p99_ms: admitted_p99_ms(period),
    };
    (0..40).map(figures).collect()
}
