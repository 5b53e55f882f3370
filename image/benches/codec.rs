//! Layer compression against `gzip` and `zstd -T0` over the same bytes: files of this machine, as a layer has them.

use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cbs_image::codec::{Compression, Decoder, Encoder, Pool};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sha2::Digest as _;

/// Bytes of input.
const SIZE: usize = 96 << 20;

fn main_group(c: &mut Criterion) {
    let input = files();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let pool = Pool::new(threads).expect("threads");
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(input.len() as u64));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(10));
    for compression in [Compression::Gzip, Compression::Zstd] {
        let encode = || {
            let mut encoder = Encoder::new(&pool, compression, compression.default_level(), Vec::new());
            for piece in input.chunks(64 << 10) {
                encoder.write_all(piece).expect("write");
            }
            encoder.finish().expect("finish").inner
        };
        let bytes = encode();
        println!(
            "{compression}: {:.4} of the input",
            bytes.len() as f64 / input.len() as f64
        );
        group.bench_function(BenchmarkId::new("encode", compression), |b| b.iter(encode));
        group.bench_function(BenchmarkId::new("decode", compression), |b| {
            b.iter(|| std::io::copy(&mut Decoder::new(&bytes[..]).expect("decoder"), &mut std::io::sink()));
        });
    }
    for (program, arguments) in [("gzip", &["-6", "-c"][..]), ("zstd", &["-3", "-T0", "-c", "-q"][..])] {
        if let Some(length) = run(program, arguments, &input) {
            println!("{program}: {:.4} of the input", length as f64 / input.len() as f64);
            group.bench_function(BenchmarkId::new("tool", program), |b| {
                b.iter(|| run(program, arguments, &input))
            });
        }
    }
    group.bench_function("sha256", |b| b.iter(|| sha2::Sha256::digest(&input)));
    group.finish();
}

/// The bytes of files under `/usr`, in the order of their names.
fn files() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIZE);
    let mut folders = vec![
        Path::new("/usr/lib").to_owned(),
        Path::new("/usr/share").to_owned(),
        Path::new("/usr/bin").to_owned(),
    ];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                // No file may fill the sample alone.
                Ok(kind) if kind.is_file() => {
                    if let Ok(file) = std::fs::File::open(entry.path()) {
                        drop(file.take(4 << 20).read_to_end(&mut bytes));
                    }
                }
                _ => {}
            }
            if bytes.len() >= SIZE {
                bytes.truncate(SIZE);
                return bytes;
            }
        }
    }
    bytes
}

/// Pipes the input through a program; the length of its output, or `None` when it is not installed.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<u64> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let (mut stdin, mut stdout) = (child.stdin.take()?, child.stdout.take()?);
    std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        let length = std::io::copy(&mut stdout, &mut std::io::sink()).ok();
        drop(child.wait());
        length
    })
}

criterion_group!(benches, main_group);
criterion_main!(benches);
