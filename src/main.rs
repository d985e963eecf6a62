//! The command line.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Arguments::parse().run() {
        Ok(code) => code,
        Err(error) => {
            cli::output::note(format_args!("tallybox: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
