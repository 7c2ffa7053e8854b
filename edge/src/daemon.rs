//! The command `skep-edge run`, without its arguments: configuration, log, run, and a stated exit code.
//!
//! In the library, so that another program can be the same daemon in other surroundings (another SQLite file system).

use std::path::PathBuf;
use std::process::ExitCode;

use actor::chain;
use admin::Exit;

use crate::config::{EdgeConfig, Log};
use crate::wiring;

/// Libraries that name each connection: kept to their warnings, and mqtt5, which warns of each refused message, to its errors,
/// unless `log.level` or `RUST_LOG` has several parts.
const QUIET: &str = "mqtt5=error,actix_server=warn,paho_mqtt=error,paho_mqtt_c=error,rustls=warn,tungstenite=warn";

/// Libraries that print the options of a connection, its password among them.
const SEALED: &[&str] = &["paho_mqtt"];

/// Sets up the log of a command that runs before, or without, a configuration.
pub fn log_at(level: &str) {
    let _ = Log { level: level.to_owned() }.init(QUIET);
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// `file` is the configuration; `/etc/skep/edge.yaml` when it exists, the defaults otherwise. `data_dir` wins over what it
/// says. Both, and the environment, are read again at each SIGHUP.
pub fn run(file: Option<PathBuf>, data_dir: Option<PathBuf>) -> ExitCode {
    let config = match EdgeConfig::load(file.as_deref(), data_dir.clone(), std::env::vars()) {
        Ok(config) => config,
        Err(error) => {
            log_at("info");
            return end(&Exit::Configuration(chain(&error)));
        }
    };
    let log = match config.log.init(QUIET) {
        Ok(log) => log,
        Err(error) => return end(&Exit::Configuration(chain(&error))),
    };
    log.seal(SEALED);
    let reread = move || EdgeConfig::load(file.as_deref(), data_dir.clone(), std::env::vars());
    match wiring::run(config, log, reread) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => end(&exit),
    }
}

/// Logs why the process ends, and gives the code that says so.
pub fn end(exit: &Exit) -> ExitCode {
    log::error!(code = exit.code(); "{exit}");
    ExitCode::from(exit)
}
