//! `skep-cloud`: reads arguments and configuration, sets up the log, runs, and ends with a stated exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use actor::chain;
use admin::exit::{self, Exit};
use clap::{Parser, Subcommand};
use skep_cloud::config::{COMMENTED_DEFAULT, CloudConfig, Log};

#[derive(Parser)]
#[command(name = "skep-cloud", version, about = "Kubernetes at the edge: the cloud service")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Run {
        #[command(flatten)]
        place: Place,
        /// Where the administrator's kubeconfig for the embedded API is written.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Print the version.
    Version,
    /// Print the commented default configuration.
    Config,
    /// Print a token with which an edge machine may join (`skep-edge join --token`).
    Token {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args)]
struct Place {
    /// Configuration file; /etc/skep/cloud.yaml when it exists, the defaults otherwise.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of everything that is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn read(&self) -> Result<CloudConfig, Exit> {
        let mut config = CloudConfig::read(self.config.as_deref(), std::env::vars()).map_err(|error| Exit::Configuration(chain(&error)))?;
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        config.check().map_err(|why| Exit::Configuration(format!("configuration: {why}")))?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            // Where the configuration itself is wrong there is no log yet.
            log_at("info");
            log::error!(code = exit.code(); "{exit}");
            ExitCode::from(&exit)
        }
    }
}

/// Libraries that name each connection: kept to their warnings, unless `log.level` or `RUST_LOG` has several parts.
const QUIET: &str = "actix_server=warn";

/// The log of a command that runs before, or without, a configuration; once.
fn log_at(level: &str) {
    let _ = Log { level: level.to_owned() }.init(QUIET);
}

#[allow(clippy::print_stdout)] // the commands whose result is text on standard output
fn execute(command: Command) -> Result<(), Exit> {
    match command {
        Command::Run { place, kubeconfig } => {
            let reread = move || {
                let mut config = place.read()?;
                config.embedded.kubeconfig = kubeconfig.clone().or(config.embedded.kubeconfig);
                Ok(config)
            };
            let config = reread()?;
            let log = config.log.init(QUIET).map_err(|error| Exit::Configuration(chain(&error)))?;
            skep_cloud::wiring::run(config, log, reread)
        }
        Command::Version => {
            println!("skep-cloud {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Config => {
            print!("{COMMENTED_DEFAULT}");
            Ok(())
        }
        Command::Token { place } => {
            log_at("info");
            println!("{}", skep_cloud::wiring::token(&place.read()?)?);
            Ok(())
        }
    }
}
