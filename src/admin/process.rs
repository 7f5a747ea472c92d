//! What the process uses, read from the kernel when somebody asks. On Linux only: elsewhere all but the start is unknown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    /// When the daemon started, since the Unix epoch.
    started: Duration,
    cpu: Option<Duration>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

impl Usage {
    /// The value of one of [`PROCESS_METRICS`](crate::telemetry::PROCESS_METRICS).
    #[allow(
        clippy::cast_precision_loss,
        reason = "bytes and descriptors; 2⁵³ of either is out of reach"
    )]
    pub(crate) fn of(&self, metric: &str) -> Option<f64> {
        let count = |value: Option<u64>| value.map(|value| value as f64);
        match metric {
            "process_cpu_seconds_total" => self.cpu.map(|time| time.as_secs_f64()),
            "process_resident_memory_bytes" => count(self.resident_bytes),
            "process_virtual_memory_bytes" => count(self.virtual_bytes),
            "process_open_fds" => count(self.open_fds),
            "process_max_fds" => count(self.max_fds),
            "process_threads" => count(self.threads),
            "process_start_time_seconds" => Some(self.started.as_secs_f64()),
            _ => None,
        }
    }
}

/// Now, as time since the Unix epoch.
pub(super) fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Reads what the process uses now. What cannot be read is left out.
#[cfg(target_os = "linux")]
pub(crate) fn usage(started: Duration) -> Usage {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let listed = std::fs::read_dir("/proc/self/fd").ok();
    Usage {
        started,
        // The listing itself holds one.
        open_fds: listed.map(|fds| (fds.count() as u64).saturating_sub(1)),
        max_fds: limit.current,
        ..of_stat(
            &stat,
            rustix::param::page_size() as u64,
            rustix::param::clock_ticks_per_second(),
        )
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn usage(started: Duration) -> Usage {
    Usage {
        started,
        ..Usage::default()
    }
}

/// Reads `/proc/self/stat` (proc(5)). The second field is the program's name and may hold anything, so fields are counted from
/// behind its last parenthesis, where the third one is.
#[cfg(target_os = "linux")]
fn of_stat(stat: &str, page_bytes: u64, ticks_a_second: u64) -> Usage {
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, behind)) => behind.split_whitespace().collect(),
        None => Vec::new(),
    };
    let field = |number: usize| -> Option<u64> { fields.get(number.checked_sub(3)?)?.parse().ok() };
    let ticks = field(14).zip(field(15));
    let ticks = ticks.and_then(|(user, system)| user.checked_add(system));
    let millis = ticks.and_then(|ticks| ticks.checked_mul(1000)?.checked_div(ticks_a_second));
    Usage {
        cpu: millis.map(Duration::from_millis),
        threads: field(20),
        virtual_bytes: field(23),
        resident_bytes: field(24).and_then(|pages| pages.checked_mul(page_bytes)),
        ..Usage::default()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_kernel_s_line_is_read_whatever_the_program_is_called() {
        let line = "42 (a) R 9 (b) S 1 42 42 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 7 0 500 104857600 2560 18446744073709551615";
        let usage = of_stat(line, 4096, 100);
        assert_eq!(usage.cpu, Some(Duration::from_millis(1750)));
        assert_eq!(usage.threads, Some(7));
        assert_eq!(usage.virtual_bytes, Some(104_857_600));
        assert_eq!(usage.resident_bytes, Some(2560 * 4096));
        for broken in [
            "",
            "42 (a",
            "42 (a) S 1",
            "1 (a) S x x x x x x x x x x x x x x x",
        ] {
            let usage = of_stat(broken, 4096, 100);
            assert!(
                usage.cpu.is_none() && usage.resident_bytes.is_none(),
                "{broken}"
            );
        }
    }

    #[test]
    fn this_process_is_seen() {
        let usage = usage(unix_now());
        assert!(usage.of("process_resident_memory_bytes").unwrap() > 1e6);
        assert!(usage.of("process_threads").unwrap() >= 1.0);
        let open = usage.of("process_open_fds").unwrap();
        assert!(open >= 3.0, "standard input, output and error");
        assert!(usage.of("process_max_fds").unwrap() >= open);
        assert_eq!(usage.of("process_unheard_of"), None);
    }
}
