//! MetaManager.
