//! The edge by itself: what a device author sees (manual ch. 14.11).

mod autonomy;
mod daemon;
mod flood;
mod hostile;
mod damage;
mod full_disk;
mod import;
mod membership;
mod reload;
mod status;
