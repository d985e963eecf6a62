//! The one chromedriver of this process, and the programs that it needs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use tokio::sync::Semaphore;

/// Browsers open at once: more only wait for the same processor.
pub(crate) static PLACES: Semaphore = Semaphore::const_new(2);

/// What starts chromedriver and ends it, by its id, as soon as our end of its standard input is closed: also when this
/// process panics or is killed. Browsers that are open by then are its children, which do not end with it. It lets go of the
/// driver's output, so that this ends with the driver.
const WATCH: &str = r#"
    "$0" --port=0 & driver=$!
    exec > /dev/null
    read -r line
    kill $(cat /proc/"$driver"/task/*/children 2>/dev/null) "$driver"
    wait "$driver""#;

static DRIVER: LazyLock<Driver> = LazyLock::new(Driver::start);

struct Driver {
    url: String,
    /// Holds the pipes open.
    _watch: Child,
}

impl Driver {
    fn start() -> Self {
        // A driver may end as soon as it has begun, as where another program takes the port that it found.
        const TRIES: usize = 3;
        let mut said = String::new();
        for _ in 0..TRIES {
            match Self::try_start() {
                Ok(driver) => return driver,
                Err(why) => said = why,
            }
        }
        panic!("chromedriver did not start:\n{said}");
    }

    #[expect(clippy::zombie_processes, reason = "it ends with this process")]
    fn try_start() -> Result<Self, String> {
        let driver = program("CHROMEDRIVER", &["chromedriver"]);
        let mut watch = Command::new("sh")
            .args(["-c", WATCH])
            .arg(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let mut said = String::new();
        // The rest of what it says is little, and stays in the pipe.
        for line in BufReader::new(watch.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, port)) = line.split_once("successfully on port ") {
                return Ok(Self { url: format!("http://127.0.0.1:{}", port.trim_end_matches('.')), _watch: watch });
            }
            said = said + &line + "\n";
        }
        Err(said)
    }
}

/// Where the chromedriver of this process listens.
pub(crate) fn url() -> &'static str {
    &DRIVER.url
}

/// The browser.
pub(crate) fn chromium() -> PathBuf {
    program("CHROME", &["chromium", "chromium-browser", "google-chrome", "chrome"])
}

/// The program that `variable` names, else the first of `names` that is installed.
fn program(variable: &str, names: &[&str]) -> PathBuf {
    if let Some(named) = std::env::var_os(variable) {
        return named.into();
    }
    let folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let found =
        names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{} is not installed, and the browser tests need it. `make needs` installs it on Debian (apt-get install \
             chromium chromium-driver); elsewhere install it and name it in {variable}. TALLYBOX_SKIP_BROWSER=1 \
             leaves the browser tests out.",
            names[0],
        )
    })
}

/// The script that finds faults of accessibility.
pub(crate) fn axe() -> &'static str {
    static AXE: LazyLock<String> = LazyLock::new(read_axe);
    &AXE
}

fn read_axe() -> String {
    let named = std::env::var_os("TALLYBOX_AXE").map(PathBuf::from);
    let file = named.unwrap_or_else(|| {
        let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
        cache.join("tallybox-tests/node_modules/axe-core/axe.min.js")
    });
    std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!("axe-core is not at {} ({error}): `make needs` installs it through npm", file.display())
    })
}
