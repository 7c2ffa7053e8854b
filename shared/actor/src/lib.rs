//! Mailboxes that outlive their actors, and the supervisor over actix actors.
