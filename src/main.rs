//! The command line.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Arguments::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // Over HTTP a fault of ours is told by its name alone; whoever is at the machine is told the cause.
            match error.downcast_ref::<tallybox::domain::Error>() {
                Some(tallybox::domain::Error::Internal(cause)) => {
                    cli::output::note(format_args!("tallybox: {error:#}: {cause}"));
                }
                _ => cli::output::note(format_args!("tallybox: {error:#}")),
            }
            ExitCode::FAILURE
        }
    }
}
