//! Last words: what a panic said and where.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Set where a panic was caught inside an actor; taken by the watcher of the incarnation on the same thread.
    static DEATH: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes panics speak through the log with their place, once per process; the supervisor shows them as last words.
pub fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
            let words = format!("{}{place}", text(info.payload()));
            log::error!(words = words.as_str(), thread = std::thread::current().name().unwrap_or("?"); "panic");
            let _ = LAST.try_with(|last| *last.borrow_mut() = Some(words));
        }));
    });
}

/// The text of a panic's payload, with its place if the hook is installed.
pub(crate) fn last_words(payload: &(dyn Any + Send)) -> String {
    LAST.try_with(|last| last.borrow_mut().take()).ok().flatten().unwrap_or_else(|| text(payload))
}

fn text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&'static str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

pub(crate) fn note_death(words: String) {
    DEATH.with(|death| *death.borrow_mut() = Some(words));
}

pub(crate) fn take_death() -> Option<String> {
    DEATH.with(|death| death.borrow_mut().take())
}
