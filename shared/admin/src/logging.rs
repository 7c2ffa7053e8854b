//! The process's log, whose level can be changed while it runs.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use env_logger::Logger;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 256;

/// Why a filter was not taken; the log goes on as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// Nothing is in it.
    #[error("the log filter is empty: say `info`, or `info,module=debug`")]
    Empty,
    /// More than [`FILTER_BYTES_MAX`].
    #[error("the log filter has {0} bytes, more than the {FILTER_BYTES_MAX} allowed: name fewer modules")]
    TooLong(usize),
    /// One part between commas is no level and no `module=level`.
    #[error("`{0}` in the log filter is neither a level (off, error, warn, info, debug, trace) nor module=level")]
    Part(String),
}

/// Why the log could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The filter is wrong.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// A process has one log, and this one has it already.
    #[error("the log of this process is set up already")]
    Taken,
}

/// The log of the process. Cheap to clone.
#[derive(Clone)]
pub struct LogControl(Arc<Inner>);

struct Inner {
    /// Read for each line that passes the level, written when an operator changes it.
    logger: RwLock<Arc<Logger>>,
    filter: Mutex<String>,
    quiet: &'static str,
    sealed: OnceLock<&'static [&'static str]>,
}

impl LogControl {
    /// Sets up the log of this process, on standard error. A `filter` that is a single level is that of our own modules;
    /// `quiet` (`module=level,…`) then holds the libraries back that would name each connection. A filter of several parts
    /// is taken as it is.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn init(filter: &str, quiet: &'static str) -> Result<Self, LogError> {
        let control = Self::new(filter, quiet)?;
        log::set_boxed_logger(Box::new(control.clone())).map_err(|_| LogError::Taken)?;
        log::set_max_level(control.logger().filter());
        Ok(control)
    }

    #[cfg(test)]
    pub(crate) fn detached(filter: &str, quiet: &'static str) -> Result<Self, BadFilter> {
        Self::new(filter, quiet)
    }

    fn new(filter: &str, quiet: &'static str) -> Result<Self, BadFilter> {
        let logger = build(filter, quiet)?;
        Ok(Self(Arc::new(Inner {
            logger: RwLock::new(Arc::new(logger)),
            filter: Mutex::new(filter.trim().to_owned()),
            quiet,
            sealed: OnceLock::new(),
        })))
    }

    /// Modules whose lines below a warning are never written, whatever the filter: they would print what is secret. The
    /// first call counts.
    pub fn seal(&self, modules: &'static [&'static str]) {
        let _ = self.0.sealed.set(modules);
    }

    fn is_sealed(&self, metadata: &Metadata<'_>) -> bool {
        let modules = self.0.sealed.get().copied().unwrap_or_default();
        metadata.level() > Level::Warn && modules.iter().any(|module| metadata.target().starts_with(module))
    }

    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// See [`BadFilter`]; then nothing changes.
    pub fn set(&self, filter: &str) -> Result<(), BadFilter> {
        let logger = build(filter, self.0.quiet)?;
        // One lock around all three, so that two operators at once leave one whole change.
        let mut current = self.0.filter.lock().unwrap_or_else(PoisonError::into_inner);
        log::set_max_level(logger.filter());
        *self.0.logger.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(logger);
        filter.trim().clone_into(&mut current);
        Ok(())
    }

    /// The filter in force, as it was given.
    #[must_use]
    pub fn current(&self) -> String {
        self.0.filter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn logger(&self) -> Arc<Logger> {
        self.0.logger.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Log for LogControl {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !self.is_sealed(metadata) && self.logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.is_sealed(record.metadata()) {
            self.logger().log(record);
        }
    }

    fn flush(&self) {
        self.logger().flush();
    }
}

fn build(filter: &str, quiet: &str) -> Result<Logger, BadFilter> {
    let filter = filter.trim();
    check(filter)?;
    let mut builder = env_logger::Builder::new();
    let with_quiet = format!("{filter},{quiet}");
    builder.format_timestamp_millis().parse_filters(if filter.contains(['=', ',']) { filter } else { &with_quiet });
    Ok(builder.build())
}

pub(crate) fn check(filter: &str) -> Result<(), BadFilter> {
    if filter.is_empty() {
        return Err(BadFilter::Empty);
    }
    if filter.len() > FILTER_BYTES_MAX {
        return Err(BadFilter::TooLong(filter.len()));
    }
    // env_logger takes a word that is no level for the name of a module: a misspelt level would silence everything else.
    let good = |part: &str| match part.split_once('=') {
        None => level(part),
        Some((module, wanted)) => {
            let named = !module.is_empty() && module.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'));
            named && level(wanted)
        }
    };
    match filter.split(',').find(|part| !good(part)) {
        Some(part) => Err(BadFilter::Part(part.to_owned())),
        None => Ok(()),
    }
}

fn level(text: &str) -> bool {
    text.parse::<LevelFilter>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: &str = "noisy=warn";

    fn says(control: &LogControl, target: &str, level: Level) -> bool {
        control.enabled(&Metadata::builder().target(target).level(level).build())
    }

    #[test]
    fn a_level_is_that_of_our_modules_and_keeps_the_noisy_libraries_quiet() {
        let control = LogControl::new("info", QUIET).unwrap_or_else(|why| panic!("{why}"));
        assert!(says(&control, "skep", Level::Info) && !says(&control, "skep", Level::Debug) && !says(&control, "noisy", Level::Info));
        control.set(" debug ").unwrap_or_else(|why| panic!("{why}"));
        assert!(says(&control, "skep", Level::Debug) && !says(&control, "noisy::part", Level::Info));
        assert_eq!(control.current(), "debug");
    }

    #[test]
    fn a_filter_of_several_parts_is_taken_as_it_is() {
        let control = LogControl::new("warn,noisy=trace,skep_edge::twin=debug", QUIET).unwrap_or_else(|why| panic!("{why}"));
        assert!(says(&control, "noisy", Level::Trace) && says(&control, "skep_edge::twin", Level::Debug) && !says(&control, "skep", Level::Info));
    }

    #[test]
    fn what_a_sealed_module_says_below_a_warning_is_written_by_no_filter() {
        let control = LogControl::new("trace,secretive=trace", QUIET).unwrap_or_else(|why| panic!("{why}"));
        assert!(says(&control, "secretive::inside", Level::Debug));
        control.seal(&["secretive"]);
        assert!(!says(&control, "secretive::inside", Level::Info) && !says(&control, "secretive", Level::Trace));
        assert!(says(&control, "secretive::inside", Level::Warn) && says(&control, "skep", Level::Trace));
        control.set("secretive=trace,info").unwrap_or_else(|why| panic!("{why}"));
        assert!(!says(&control, "secretive", Level::Debug));
    }

    #[test]
    fn a_wrong_filter_is_refused_with_the_part_and_changes_nothing() {
        let control = LogControl::new("info", QUIET).unwrap_or_else(|why| panic!("{why}"));
        for (filter, part) in
            [("inof", "inof"), ("info,", ""), ("a=b", "a=b"), ("=info", "=info"), ("info,x y=warn", "x y=warn"), ("info/re", "info/re")]
        {
            assert_eq!(control.set(filter), Err(BadFilter::Part(part.to_owned())), "{filter}");
        }
        assert_eq!(control.set("  "), Err(BadFilter::Empty));
        assert_eq!(control.set(&"a=info,".repeat(1500)), Err(BadFilter::TooLong(10_500)));
        assert_eq!(control.current(), "info");
        assert!(says(&control, "skep", Level::Info));
    }
}
