//! Thermometer.
fn main() {}
