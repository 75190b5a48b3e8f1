//! How much memory can still be taken, as the files of Linux tell it.

use std::fs::read_to_string;

/// Bytes that a new buffer can take: what the system can free now, and no more than a control group allows. Where no file
/// says so, all that can be counted.
pub fn available_bytes() -> usize {
    let read = |path: &str| read_to_string(path).unwrap_or_default();
    let group = |name: &str| read(&format!("/sys/fs/cgroup/{name}"));
    let system = system_bytes(&read("/proc/meminfo"));
    let allowed = group_bytes(&group("memory.max"), &group("memory.current"), &group("memory.stat"));
    system.unwrap_or(usize::MAX).min(allowed.unwrap_or(usize::MAX))
}

/// `MemAvailable` of /proc/meminfo, which is in KiB.
fn system_bytes(meminfo: &str) -> Option<usize> {
    let kib = number_behind(meminfo, "MemAvailable:")?;
    Some(kib << 10)
}

/// What is left of the limit of a control group, from its `memory.max`, `memory.current` and `memory.stat`; `None` without a
/// limit. What a group holds as file cache is given back when memory is short.
fn group_bytes(most: &str, used: &str, stat: &str) -> Option<usize> {
    let most: usize = most.trim().parse().ok()?;
    let used: usize = used.trim().parse().ok()?;
    let cache: usize = ["inactive_file ", "active_file "].iter().filter_map(|key| number_behind(stat, key)).sum();
    Some(most.saturating_sub(used.saturating_sub(cache)))
}

/// The first number of the line that begins with `key`.
fn number_behind(text: &str, key: &str) -> Option<usize> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "anon 700\nfile 250\nactive_anon 9\nworkingset_activate_file 5\ninactive_file 150\nactive_file 50\n";

    #[test]
    fn a_system_has_what_it_calls_available() {
        let meminfo = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(system_bytes(meminfo), Some(8_000_000 << 10));
        assert_eq!(system_bytes("MemTotal: 16000000 kB\n"), None);
        assert_eq!(system_bytes(""), None);
    }

    #[test]
    fn a_group_has_its_limit_less_what_it_uses_other_than_as_file_cache() {
        assert_eq!(group_bytes("1000\n", "900\n", STAT), Some(300));
        assert_eq!(group_bytes("1000\n", "900\n", ""), Some(100));
        assert_eq!(group_bytes("1000\n", "120\n", STAT), Some(1000));
        assert_eq!(group_bytes("1000\n", "2000\n", STAT), Some(0));
    }

    #[test]
    fn a_group_without_a_limit_limits_nothing() {
        assert_eq!(group_bytes("max\n", "900\n", STAT), None);
        assert_eq!(group_bytes("", "", ""), None);
    }
}
