//! The disk of a node: a directory, or a file system of its own in an image.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::net::run;

/// What a block is when lost bytes are counted.
const BLOCK: usize = 4096;
/// `FS_IOC_SHUTDOWN` without flushing the journal: what was not synced is gone, as if the power had
/// failed. Perl is on every Debian and Ubuntu, and makes the call without unsafe code of ours.
const SHUTDOWN: &str = r#"open(my $f, "<", $ARGV[0]) or die "open: $!"; my $how = pack("L", 2); ioctl($f, 0x8004587d, $how) or die "shutdown: $!";"#;

/// Where a node keeps its data.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The directory of the data.
    pub path: PathBuf,
    /// The image, where it is a file system of its own.
    image: Option<PathBuf>,
}

/// The files of a disk as they were at one moment: a hash per block.
#[derive(Debug, Clone, Default)]
pub struct Sample(BTreeMap<PathBuf, Vec<(u64, usize)>>);

impl Disk {
    /// A plain directory.
    pub fn directory(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, image: None })
    }

    /// An ext4 file system of `mib` MiB in an image below `parent`, mounted.
    pub fn image(parent: &Path, name: &str, mib: u64) -> Result<Self> {
        let image = parent.join(format!("{name}.img"));
        let file = fs::File::create(&image).with_context(|| image.display().to_string())?;
        file.set_len(mib << 20)?;
        let options = "-q -F -m 0 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        run("mkfs.ext4", &format!("{options} {}", image.display()))?;
        let path = parent.join(name);
        fs::create_dir_all(&path)?;
        let disk = Self { path, image: Some(image) };
        disk.mount()?;
        Ok(disk)
    }

    /// Whether it is a file system of its own, and so can be cut off, filled and frozen.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.image.is_some()
    }

    /// The directory that the node is given: below the root of the file system, which holds
    /// `lost+found`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn mount(&self) -> Result<()> {
        let image = self.image.as_ref().context("a directory is not mounted")?;
        run("mount", &format!("-o loop {} {}", image.display(), self.path.display()))
    }

    /// The power fails: from now on nothing is written or read, and what was not synced is lost.
    pub fn cut_power(&self) -> Result<()> {
        ensure!(self.is_own(), "a directory has no power of its own");
        let output =
            crate::net::command("perl").arg("-e").arg(SHUTDOWN).arg(&self.path).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "power of {}: {said}", self.path.display());
        Ok(())
    }

    /// The power is back; nobody may have files open.
    pub fn restore_power(&self) -> Result<()> {
        run("umount", &self.path.display().to_string())?;
        self.mount()
    }

    /// Fills it to the last block.
    pub fn fill(&self) -> Result<()> {
        ensure!(self.is_own(), "only a file system of its own is filled");
        let filler = self.filler();
        let free = rustix::fs::statvfs(&self.path)?;
        let bytes = free.f_bavail * free.f_frsize;
        let file = fs::File::create(&filler)?;
        let mode = rustix::fs::FallocateFlags::empty();
        // A little is left by rounding; smaller and smaller pieces take it.
        let (mut at, mut piece) = (0, bytes);
        while 4096 <= piece {
            match rustix::fs::fallocate(&file, mode, at, piece) {
                Ok(()) => at += piece,
                Err(_) => piece /= 2,
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn empty(&self) -> Result<()> {
        let filler = self.filler();
        if filler.exists() {
            fs::remove_file(&filler)?;
        }
        Ok(())
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Removes everything that the node has on it.
    pub fn wipe(&self) -> Result<()> {
        let data = self.data();
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.with_context(|| data.display().to_string()),
        }
    }

    /// Whoever writes waits until [`Disk::thaw`].
    pub fn freeze(&self) -> Result<()> {
        ensure!(self.is_own(), "only a file system of its own is frozen");
        run("fsfreeze", &format!("-f {}", self.path.display()))
    }

    pub fn thaw(&self) -> Result<()> {
        run("fsfreeze", &format!("-u {}", self.path.display()))
    }

    /// What its files hold now, synced or not. Whoever writes has to be stopped.
    pub fn sample(&self) -> Result<Sample> {
        let mut sample = Sample::default();
        collect(&self.data(), &mut sample.0)?;
        Ok(sample)
    }
}

fn collect(path: &Path, into: &mut BTreeMap<PathBuf, Vec<(u64, usize)>>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), into)?;
        }
        return Ok(());
    }
    // Else a socket, or gone meanwhile.
    let Ok(bytes) = fs::read(path) else { return Ok(()) };
    let blocks = bytes.chunks(BLOCK).map(|block| {
        let mut hasher = DefaultHasher::new();
        hasher.write(block);
        (hasher.finish(), block.len())
    });
    into.insert(path.to_owned(), blocks.collect());
    Ok(())
}

impl Sample {
    /// The bytes in blocks that are not any more what they were.
    #[must_use]
    pub fn lost(&self, after: &Self) -> u64 {
        let none = Vec::new();
        let mut lost = 0;
        for (path, blocks) in &self.0 {
            let now = after.0.get(path).unwrap_or(&none);
            for (nth, block) in blocks.iter().enumerate() {
                if now.get(nth).is_none_or(|now| now != block) {
                    lost += block.1 as u64;
                }
            }
        }
        lost
    }
}
