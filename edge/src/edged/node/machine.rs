//! What the machine is, and where it is reached: from the kernel's files and its routing table.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

/// What does not change while the daemon runs, but for the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Logical CPUs.
    pub cpus: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Bytes of the disk with the data directory; 0 if that is not known. Read once: on some file systems it moves.
    pub storage_bytes: u64,
    /// Host name of the machine.
    pub hostname: String,
    /// Address that other machines reach.
    pub address: Address,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of the distribution.
    pub os_image: String,
    /// Go's word for the architecture (`amd64`, `arm64`).
    pub architecture: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Of the mainboard, else the machine id.
    pub system_uuid: String,
    /// Of this boot.
    pub boot_id: String,
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().chars().take(256).collect()
}

impl Machine {
    /// Looks at the machine. What cannot be read is empty or 0.
    ///
    /// `data_dir` is on the disk that pods write to; `interface` is as for [`Address::find`].
    pub fn probe(interface: Option<&str>, data_dir: &Path) -> Self {
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: count_cpus(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            memory_mib: memory_mib(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            storage_bytes: storage_bytes(data_dir),
            hostname: line("/proc/sys/kernel/hostname"),
            address: Address::default().find(interface),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty_name(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
            architecture: architecture().into(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }
}

/// Size of the disk on which the directory is, or will be.
fn storage_bytes(data_dir: &Path) -> u64 {
    let found = data_dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok());
    found.map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize))
}

fn count_cpus(cpuinfo: &str) -> u64 {
    let listed = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let counted = if listed > 0 { listed } else { std::thread::available_parallelism().map_or(1, usize::from) };
    counted as u64
}

fn memory_mib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn pretty_name(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').chars().take(256).collect())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// How an address was found; a later one is the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// There is no network: the machine's name for itself.
    Itself,
    /// The default route leaves from it.
    Route,
    /// It is of the interface that the configuration names.
    Interface,
}

/// Where a machine is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// How it was found.
    pub origin: Origin,
}

impl Default for Address {
    fn default() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST, origin: Origin::Itself }
    }
}

impl Address {
    /// Which of two is the node's, this one that was known or the one that was found after it.
    ///
    /// A machine whose network is away keeps its address, as it keeps its pods; and one whose interface is away does not go by
    /// another one meanwhile.
    #[must_use]
    pub fn or(self, found: Self) -> Self {
        if found.origin >= self.origin { found } else { self }
    }

    /// Looks where the machine is now; this is where it was.
    ///
    /// `interface` is the network interface whose address is the node's; without it, or when it has none, the address of the
    /// default route is found. Sends nothing and waits for nothing: the kernel's tables are in memory.
    #[must_use]
    pub fn find(self, interface: Option<&str>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        if let Some(ip) = interface.and_then(|name| address_of(name, &read("/proc/net/route"), &read("/proc/net/fib_trie"), self.ip)) {
            return Self { ip, origin: Origin::Interface };
        }
        // "Connecting" a datagram socket sends nothing; it asks the routing table which address would be used.
        let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
            socket.local_addr()
        });
        match routed.map(|address| address.ip()) {
            Ok(IpAddr::V4(ip)) if !ip.is_unspecified() => Self { ip, origin: Origin::Route },
            _ => Self::default(),
        }
    }

    /// Where this machine itself finds what runs on its network: at its address while it has it. One that lost it with its
    /// network, or for another, still is at home.
    pub fn at_home(self) -> Ipv4Addr {
        // Only an address of this machine can be bound to.
        if UdpSocket::bind((self.ip, 0)).is_ok() { self.ip } else { Ipv4Addr::LOCALHOST }
    }
}

/// The local address within a network that is routed over the interface, from the kernel's two tables. Of several it is the
/// one that is known, else the first.
fn address_of(interface: &str, route: &str, fib_trie: &str, known: Ipv4Addr) -> Option<Ipv4Addr> {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let networks: Vec<(u32, u32)> = route
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (name, network, mask) = (columns.first()?, hex(columns.get(1)?)?, hex(columns.get(7)?)?);
            (*name == interface && mask != 0).then_some((network, mask))
        })
        .collect();
    let (mut last, mut first) = (None, None);
    for line in fib_trie.lines() {
        let text = line.trim();
        if let Some(address) = text.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if text.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && networks.iter().any(|(network, mask)| u32::from(address) & mask == network & mask)
        {
            // One that is added for a while must not take its place.
            if address == known {
                return last;
            }
            first = first.or(last);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_machine_is_read_from_the_kernels_files() {
        assert_eq!(memory_mib("MemTotal:       24685284 kB\nMemFree: 1 kB\n"), 24_106);
        assert_eq!(count_cpus("processor\t: 0\nmodel name: x\nprocessor\t: 1\n"), 2);
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!((memory_mib("nonsense"), pretty_name("")), (0, "Linux".to_owned()));
        let here = Machine::probe(None, Path::new("/no/such/directory/yet"));
        assert!(
            here.cpus > 0 && here.memory_mib > 0 && here.storage_bytes > 0 && !here.kernel.is_empty() && !here.address.ip.is_unspecified(),
            "{here:?}"
        );
    }

    #[test]
    fn the_address_of_a_named_interface_is_found_and_of_an_unknown_one_not() {
        let route = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\nens4\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\nens4\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\ndocker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n";
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 172.17.0.1\n        /32 host LOCAL\n     |-- 192.168.1.0\n        /24 link UNICAST\n     |-- 192.168.1.7\n        /32 host LOCAL\n";
        let none = Ipv4Addr::LOCALHOST;
        assert_eq!(address_of("ens4", route, trie, none), Some(Ipv4Addr::new(192, 168, 1, 7)));
        assert_eq!(address_of("docker0", route, trie, none), Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(address_of("eth9", route, trie, none), None);
        // A second one comes, which the kernel lists first.
        let both = trie.replace("     |-- 192.168.1.7\n", "     |-- 192.168.1.3\n        /32 host LOCAL\n     |-- 192.168.1.7\n");
        assert_eq!(address_of("ens4", route, &both, none), Some(Ipv4Addr::new(192, 168, 1, 3)));
        assert_eq!(address_of("ens4", route, &both, Ipv4Addr::new(192, 168, 1, 7)), Some(Ipv4Addr::new(192, 168, 1, 7)), "the known one stays");
        assert_eq!(address_of("ens4", route, trie, Ipv4Addr::new(192, 168, 1, 3)), Some(Ipv4Addr::new(192, 168, 1, 7)), "until it goes");
    }

    #[test]
    fn an_address_gives_way_to_one_that_was_found_at_least_as_well() {
        let (nowhere, route, interface) = (Address::default(), |end| at(end, Origin::Route), |end| at(end, Origin::Interface));
        assert_eq!(nowhere.or(route(2)), route(2), "the network comes");
        assert_eq!(route(2).or(route(3)), route(3), "another lease");
        assert_eq!(route(2).or(nowhere), route(2), "the network is away");
        assert_eq!(nowhere.or(nowhere), nowhere);
        assert_eq!(route(2).or(interface(3)), interface(3), "the interface comes later than the route");
        assert_eq!(interface(2).or(route(3)), interface(2), "the interface is away, and another one leads out");
        assert_eq!(interface(2).or(nowhere), interface(2));
        assert_eq!(interface(2).or(interface(3)), interface(3));
    }

    fn at(end: u8, origin: Origin) -> Address {
        Address { ip: Ipv4Addr::new(10, 0, 0, end), origin }
    }

    #[test]
    fn a_machine_that_has_its_address_no_more_finds_itself_at_home() {
        let here = |ip| Address { ip, origin: Origin::Route }.at_home();
        assert_eq!(here(Ipv4Addr::new(127, 0, 0, 2)), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(here(Ipv4Addr::new(192, 0, 2, 1)), Ipv4Addr::LOCALHOST, "an address of nobody (RFC 5737)");
    }
}
