//! The edge by itself: what a device author sees (manual ch. 14.11).

mod autonomy;
mod daemon;
mod damage;
mod flood;
mod full_disk;
mod hostile;
mod import;
mod membership;
mod reload;
mod status;
mod users;
