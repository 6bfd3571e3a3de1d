//! A program of one's own: the commands of `contraflow` under another name.

use std::process::ExitCode;

use contraflow::Cli;

fn main() -> ExitCode {
    Cli::builder().name("deploy").version("1.4.0").about("Deploys our services").run()
}
