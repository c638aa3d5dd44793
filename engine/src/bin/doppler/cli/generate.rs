//! `doppler generate`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use doppler_engine::bench::{Shape, Synthetic};
use doppler_engine::formats::convert::Recipe;
use doppler_engine::source::Source;

use super::Failure;
use super::open::size;

/// Bytes written at a time, by each thread.
const CHUNK: u64 = 16 << 20;

/// Threads that write; more of them wait for the disk.
const THREADS: usize = 8;

/// Writes beside `output` first, so that an unfinished file never bears its name.
pub(super) fn generate(shape: &str, quant: Recipe, output: &Path) -> Result<(), Failure> {
    let file = Synthetic::new(Shape::find(shape)?, quant)?;
    let mut unfinished = output.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = Path::new(&unfinished);
    let begin = Instant::now();
    let written = write(&file, unfinished);
    if let Err(error) = written {
        // Whatever failed first is what to tell.
        let _ = fs::remove_file(unfinished);
        return Err(error);
    }
    fs::rename(unfinished, output)?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}: {} in {seconds:.1} s, {}/s", output.display(), size(file.bytes()), size((file.bytes() as f64 / seconds) as u64));
    Ok(())
}

fn write(file: &Synthetic, path: &Path) -> Result<(), Failure> {
    let target = File::create(path)?;
    check_space(&target, file.bytes())?;
    target.set_len(file.bytes())?;
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..threads).map(|_| scope.spawn(|| write_chunks(file, path, &next))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(|_| Err(io::Error::other("a writing thread ended"))))
    })?;
    Ok(())
}

/// Writes one chunk after the other that no other thread writes.
fn write_chunks(file: &Synthetic, path: &Path, next: &AtomicU64) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).open(path)?;
    let mut chunk = Vec::new();
    loop {
        let offset = next.fetch_add(CHUNK, Ordering::Relaxed);
        if offset >= file.bytes() {
            return Ok(());
        }
        chunk.clear();
        chunk.resize((file.bytes() - offset).min(CHUNK) as usize, 0);
        file.fill(offset, &mut chunk);
        target.seek(SeekFrom::Start(offset))?;
        target.write_all(&chunk)?;
    }
}

/// Refuses what does not fit the disk, before it is full. Elsewhere the file's length reserves the space.
#[cfg_attr(not(unix), allow(unused_variables, clippy::unnecessary_wraps, reason = "nothing to ask"))]
fn check_space(target: &File, bytes: u64) -> Result<(), Failure> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::fstatvfs(target)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < bytes {
            return Err(format!(
                "the file needs {} and its disk has {} free: choose another disk or a smaller shape",
                size(bytes),
                size(free)
            )
            .into());
        }
    }
    Ok(())
}
