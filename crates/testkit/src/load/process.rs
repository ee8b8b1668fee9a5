//! What processes cost, as the kernel counts it.

use std::fs;

use anyhow::Context as _;

/// Ticks of `/proc/PID/stat` in a second: part of the kernel's interface on every machine that
/// Rust knows.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory and threads of a process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is resident.
    pub rss: u64,
    /// Of this, what is not backed by files: heap and stacks.
    pub anon: u64,
    /// The most that was ever resident, or since [`reset_peak`].
    pub peak: u64,
    /// Threads.
    pub threads: u64,
}

/// Processor seconds of a process so far, in user and kernel mode together, with those of
/// threads that have ended.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let (user, system) = cpu_split(pid)?;
    Ok(user + system)
}

/// Processor seconds of a process so far, in user mode and in the kernel.
///
/// # Errors
/// When there is no such process.
pub fn cpu_split(pid: u32) -> anyhow::Result<(f64, f64)> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name of the program is in parentheses and may hold anything.
    let (_, fields) = text.rsplit_once(')').with_context(|| path.clone())?;
    let ticks = |at: usize| fields.split_whitespace().nth(at)?.parse::<f64>().ok();
    let user = ticks(11).with_context(|| path.clone())?;
    let system = ticks(12).with_context(|| path.clone())?;
    Ok((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

/// Memory of a process.
///
/// # Errors
/// When there is no such process.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse::<u64>().ok())
            .with_context(|| format!("{path}: {key}"))
    };
    Ok(Memory {
        rss: number("VmRSS:")? * 1024,
        anon: number("RssAnon:")? * 1024,
        peak: number("VmHWM:")? * 1024,
        threads: number("Threads:")?,
    })
}

/// Forgets the most that was resident, so that [`Memory::peak`] counts from now.
///
/// # Errors
/// When the kernel refuses.
pub fn reset_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").context(path)
}

/// What was measured on: processor, how many of them, memory, kernel.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(|| "unknown".to_owned(), |(_, it)| it.trim().to_owned())
    };
    let processor = value(&read("/proc/cpuinfo"), "model name");
    let cores = std::thread::available_parallelism().map_or(1, |it| it.get());
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{processor}, {cores} cores, {memory}, Linux {}",
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let own = std::process::id();
        assert!(cpu_seconds(own).unwrap() >= 0.0);
        let memory = memory(own).unwrap();
        assert!(memory.anon > 0 && memory.anon <= memory.rss && memory.rss <= memory.peak);
        assert!(memory.threads >= 1);
        assert!(machine().contains(" cores, "));
    }
}
