//! One golden example of each message.
