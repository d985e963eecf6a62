//! Speed of the built-in embedder beside onnxruntime's with the same model in float32.
//!
//! `make bench-embedding` runs both, in turns within one run, so that the machine's drift meets
//! both alike. Without `EMBEDDING_PEER`, the command that starts the peer, ours is timed alone.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reports to the terminal and stops at the first fault"
)]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tallybox::adapter::embedder::{Builtin, Embedder};

/// Tokens of a text, with the two special ones.
const TOKENS: [usize; 3] = [20, 128, 256];

/// Threads, each of which has one text in our case; the peer gets the texts as one batch.
const THREADS: [usize; 2] = [1, 2];

/// Turns of both.
const TURNS: usize = 8;

/// Pause between turns: onnxruntime's threads spin for a while after their work, and would take
/// our processors.
const PAUSE: Duration = Duration::from_millis(150);

/// Tokens that a turn embeds, which sets how often it embeds a text.
const TURN_TOKENS: usize = 2000;

/// onnxruntime in a child process.
struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the command in `EMBEDDING_PEER`, whose words are separated by spaces.
    fn start() -> Option<Self> {
        let command = env::var("EMBEDDING_PEER").ok()?;
        let mut words = command.split_whitespace();
        let mut child = Command::new(words.next()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer starts");
        let requests = child.stdin.take().expect("the peer has an input");
        let answers = BufReader::new(child.stdout.take().expect("the peer has an output"));
        Some(Self { child, requests, answers })
    }

    fn ask(&mut self, request: &str) -> String {
        writeln!(self.requests, "{request}").expect("the peer reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the peer answers");
        assert!(!answer.is_empty(), "the peer has stopped");
        answer.trim().to_owned()
    }

    fn seconds(&mut self, tokens: usize, threads: usize, rounds: usize) -> Vec<f64> {
        self.ask(&format!("{tokens} {threads} {threads} {rounds}"))
            .split(' ')
            .map(|second| second.parse().expect("a number"))
            .collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of each round in which every thread embeds a text.
fn measure(embedder: &Builtin, text: &str, threads: usize, rounds: usize) -> Vec<f64> {
    let embed = || embedder.embed(&[text]).expect("a text is embedded");
    if threads == 1 {
        return (0..rounds)
            .map(|_| {
                let begin = Instant::now();
                embed();
                begin.elapsed().as_secs_f64()
            })
            .collect();
    }
    // Starting the threads counts for all rounds together, as a pool's threads are there already.
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..rounds).for_each(|_| drop(embed())));
        }
    });
    let rounds_f64 = f64::from(u32::try_from(rounds).expect("few rounds"));
    vec![begin.elapsed().as_secs_f64() / rounds_f64]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A line of /proc/self/status, in MiB.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok());
    kibibytes.unwrap_or(f64::NAN) / 1024.0
}

fn main() {
    let before = memory("VmRSS");
    let begin = Instant::now();
    let embedder = Builtin::load().expect("the model loads");
    let load = begin.elapsed().as_secs_f64();
    let mut peer = Peer::start();
    if let Some(peer) = &mut peer {
        let (version, differ) = (peer.ask("version"), peer.ask("check"));
        println!("peer: onnxruntime {version}, f32; its two graphs differ by {differ}");
    }
    println!("tokens threads   ours ms   peer ms   ratio");
    for threads in THREADS {
        for tokens in TOKENS {
            // A word of one token each.
            let text = "time ".repeat(tokens - 2);
            assert_eq!(embedder.token_ids(&text).len(), tokens);
            let rounds = TURN_TOKENS.div_ceil(tokens * threads);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                ours.extend(measure(&embedder, &text, threads, rounds));
                if let Some(peer) = &mut peer {
                    theirs.extend(peer.seconds(tokens, threads, rounds));
                    std::thread::sleep(PAUSE);
                }
            }
            let ours = median(ours) * 1e3;
            if theirs.is_empty() {
                println!("{tokens:6} {threads:7} {ours:9.2}");
            } else {
                let theirs = median(theirs) * 1e3;
                let ratio = ours / theirs;
                println!("{tokens:6} {threads:7} {ours:9.2} {theirs:9.2} {ratio:7.2}");
            }
        }
    }
    let prose = "The quick brown fox, being café-born, jumps over 13 lazy dogs. ".repeat(4_200);
    let long = &prose[..prose.floor_char_boundary(256 * 1024)];
    let windows = median(
        (0..9)
            .map(|_| {
                let begin = Instant::now();
                assert!(embedder.windows(long).len() > 200);
                begin.elapsed().as_secs_f64()
            })
            .collect(),
    );
    println!("load {:.0} ms, windows of 256 KiB {:.0} ms", load * 1e3, windows * 1e3);
    println!(
        "resident {:.1} MiB before loading, {:.1} MiB at the end, at most {:.1} MiB",
        before,
        memory("VmRSS"),
        memory("VmHWM")
    );
}
