//! Devices, twins, memberships, names and their pure rules.
