//! How busy a Linux machine is, from what the kernel counts.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::config::Pressure;

/// Part of the time since the last look in which some task waited for a processor, above which there is no room.
const CPU_STALL: f64 = 0.4;
/// The same for memory.
const MEMORY_STALL: f64 = 0.05;

/// Reads `/proc/stat` and, where the kernel has it, `/proc/pressure`.
#[derive(Debug)]
pub struct LinuxPressure {
    proc: PathBuf,
    cores: NonZeroUsize,
    last: Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    time: Instant,
    /// Microseconds of stall since boot.
    cpu: Option<u64>,
    memory: Option<u64>,
}

impl LinuxPressure {
    /// For a machine with this many usable processors; `proc` is where procfs is mounted.
    pub fn new(proc: impl Into<PathBuf>, cores: NonZeroUsize) -> Self {
        Self {
            proc: proc.into(),
            cores,
            last: Mutex::default(),
        }
    }

    fn stall(&self, what: &str) -> Option<u64> {
        let text = std::fs::read_to_string(self.proc.join("pressure").join(what)).ok()?;
        let some = text.lines().find(|line| line.starts_with("some "))?;
        some.rsplit_once("total=")?.1.trim().parse().ok()
    }

    /// Tasks that run or could run now, this one among them.
    fn runnable(&self) -> Option<usize> {
        let text = std::fs::read_to_string(self.proc.join("stat")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("procs_running "))?;
        line.trim().parse().ok()
    }
}

impl Pressure for LinuxPressure {
    fn has_room(&self) -> bool {
        let look = Look {
            time: Instant::now(),
            cpu: self.stall("cpu"),
            memory: self.stall("memory"),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = |now: Option<u64>, then: Option<u64>, since: f64| match (now, then) {
            (Some(now), Some(then)) => now.saturating_sub(then) as f64 / 1e6 / since.max(1e-3),
            _ => 0.0,
        };
        let calm = last.as_ref().is_none_or(|last| {
            let since = look.time.duration_since(last.time).as_secs_f64();
            stalled(look.cpu, last.cpu, since) < CPU_STALL && stalled(look.memory, last.memory, since) < MEMORY_STALL
        });
        *last = Some(look);
        // Without the count there is no telling; the number of cores is then the limit.
        calm && self.runnable().is_some_and(|count| count <= self.cores.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_an_idle_processor_and_no_stall() {
        let proc = tempfile::tempdir().expect("tempdir");
        let write = |running: usize, cpu: u64, memory: u64| {
            let pressure = proc.path().join("pressure");
            std::fs::create_dir_all(&pressure).expect("mkdir");
            std::fs::write(proc.path().join("stat"), format!("cpu 1 2\nprocs_running {running}\n")).expect("write");
            for (name, total) in [("cpu", cpu), ("memory", memory)] {
                let text = format!("some avg10=1.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 total=0\n");
                std::fs::write(pressure.join(name), text).expect("write");
            }
        };
        let pressure = LinuxPressure::new(proc.path(), NonZeroUsize::MIN.saturating_add(1));
        write(2, 0, 0);
        assert!(pressure.has_room());
        write(3, 0, 0);
        assert!(!pressure.has_room(), "three tasks on two processors");
        write(1, 3_600_000_000, 0);
        assert!(!pressure.has_room(), "tasks waited for a processor");
        write(1, 3_600_000_000, 0);
        assert!(pressure.has_room());
        write(1, 3_600_000_000, 3_600_000_000);
        assert!(!pressure.has_room(), "tasks waited for memory");
        let nowhere = LinuxPressure::new(proc.path().join("nowhere"), NonZeroUsize::MIN);
        assert!(!nowhere.has_room());
    }
}
