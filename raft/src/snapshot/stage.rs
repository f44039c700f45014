//! What of a snapshot has arrived so far. It is kept when the stream breaks or the node stops, so
//! that the next attempt, by whichever leader, goes on where this one ended.
//!
//! ```text
//!   incoming/state/<crc>-<len>-<name>[.part]   files of the state, named by their content
//!   incoming/log/<base>.seg | <base>.part      segments: whole and checked, or the beginning
//!   incoming/linked/<base>.seg                 this node's own segments that are the same
//! ```
//! Of a segment that is not whole any beginning can be continued: committed bytes are the same in
//! every log of the group.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use commitlog::{Checked, CommitLog, Disk, Extent, FileDisk, GroupId, check_segment, segment_name};

use super::install::holds;
use super::manifest::{Manifest, StateFile};
use super::store::{LOG, STATE, Store};
use super::{Error, failed, files};

const LINKED: &str = "linked";
const PART: &str = ".part";
/// Bytes written before they are synced: a single sync of a whole segment would hold up the disk.
const SYNC_EVERY: u64 = 8 << 20;

/// What a leader offers.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) manifest: Manifest,
    /// The log up to the snapshot's entry, the oldest segment first.
    pub(crate) segments: Vec<Extent>,
    pub(crate) segment_size: u64,
}

impl Offer {
    /// Files are numbered through: those of the state, then the segments.
    pub(crate) fn len_of(&self, file: usize) -> Option<u64> {
        let state = self.manifest.files.len();
        match file.checked_sub(state) {
            None => Some(self.manifest.files[file].len),
            Some(segment) => self.segments.get(segment).map(|extent| extent.len),
        }
    }

    /// # Errors
    /// `Malformed`: segments that cannot be a log.
    fn check(&self, segment_size: u64) -> Result<(), Error> {
        if self.segment_size != segment_size {
            return Err(Error::Malformed("it has segments of another size"));
        }
        let Some((newest, older)) = self.segments.split_last() else {
            return Err(Error::Malformed("it has no log"));
        };
        if newest.last != self.manifest.last || newest.len > segment_size {
            return Err(Error::Malformed("its log does not end with its entry"));
        }
        let bases = self.segments.iter().map(|extent| extent.base.0);
        let follow = bases.clone().zip(bases.skip(1)).all(|(a, b)| a + segment_size == b);
        let whole = older.iter().all(|extent| extent.len == segment_size);
        if !follow || !whole || newest.base.0 % segment_size != 0 {
            return Err(Error::Malformed("its segments do not follow each other"));
        }
        Ok(())
    }
}

/// Where to go on with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) file: usize,
    pub(crate) from: u64,
}

/// This node's log, parts of which may be re-used.
pub(crate) struct OwnLog<'a> {
    pub(crate) log: &'a CommitLog,
    pub(crate) dir: &'a Path,
}

#[derive(Debug)]
pub(crate) struct Stage {
    incoming: PathBuf,
    assembled: PathBuf,
    group: GroupId,
    offer: Offer,
    /// Per segment: how it joins those around it, once it is whole and checked.
    checked: Vec<Option<Checked>>,
    open: Option<Open>,
}

/// The file that is being written.
#[derive(Debug)]
struct Open {
    file: usize,
    path: PathBuf,
    handle: File,
    len: u64,
    unsynced: u64,
}

impl Stage {
    /// Looks at what is here already, and says what is wanted. Blocks for as long as reading it
    /// takes.
    ///
    /// # Errors
    /// `Malformed` for an offer that cannot be taken; `Io`.
    pub(crate) fn begin(
        store: &Store,
        own: &OwnLog<'_>,
        segment_size: u64,
        offer: Offer,
    ) -> Result<(Stage, Vec<Part>), Error> {
        offer.check(segment_size)?;
        if offer.manifest.group != store.group() {
            return Err(Error::Malformed("it belongs to another group"));
        }
        let checked = vec![None; offer.segments.len()];
        let mut stage = Stage {
            incoming: store.incoming(),
            assembled: store.assembled(),
            group: store.group(),
            offer,
            checked,
            open: None,
        };
        files::remove_dir(&stage.assembled)?;
        files::remove_dir(&stage.dir(LINKED))?;
        for dir in [STATE, LOG, LINKED] {
            files::create_dir(&stage.dir(dir))?;
        }
        stage.forget_others()?;
        let mut parts = Vec::new();
        for file in 0..stage.offer.manifest.files.len() {
            parts.extend(stage.wanted_of_state(file)?);
        }
        for segment in 0..stage.offer.segments.len() {
            parts.extend(stage.wanted_of_log(segment, own)?);
        }
        Ok((stage, parts))
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.incoming.join(name)
    }

    /// Removes what is not part of the offer.
    fn forget_others(&self) -> Result<(), Error> {
        let keys: Vec<String> = self.offer.manifest.files.iter().map(key).collect();
        for (name, path) in files::list(&self.dir(STATE))? {
            if !keys.iter().any(|key| name.strip_suffix(PART).unwrap_or(&name) == key) {
                files::remove_file(&path)?;
            }
        }
        let bases: Vec<String> =
            self.offer.segments.iter().map(|extent| segment_name(extent.base)).collect();
        for (name, path) in files::list(&self.dir(LOG))? {
            let whole = name.strip_suffix(PART).map(|base| format!("{base}.seg"));
            if !bases.contains(whole.as_ref().unwrap_or(&name)) {
                files::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn wanted_of_state(&self, file: usize) -> Result<Option<Part>, Error> {
        let wanted = &self.offer.manifest.files[file];
        let path = self.dir(STATE).join(key(wanted));
        if path.exists() {
            if files::len(&path)? == wanted.len && files::crc(&path)? == wanted.crc {
                return Ok(None);
            }
            files::remove_file(&path)?;
        }
        Ok(Some(Part { file, from: begun(&part(&path), wanted.len, false)? }))
    }

    fn wanted_of_log(&mut self, segment: usize, own: &OwnLog<'_>) -> Result<Option<Part>, Error> {
        let extent = self.offer.segments[segment];
        let path = self.dir(LOG).join(segment_name(extent.base));
        if self.is_whole(segment) {
            if own.has(extent)? {
                let linked = self.dir(LINKED).join(segment_name(extent.base));
                files::link(&own.dir.join(segment_name(extent.base)), &linked)?;
            }
            for dir in [LINKED, LOG] {
                match self.check(dir, extent) {
                    Ok(Some(checked)) => {
                        self.checked[segment] = Some(checked);
                        return Ok(None);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, base = %extent.base, "a segment is fetched anew");
                        files::remove_file(&self.dir(dir).join(segment_name(extent.base)))?;
                    }
                }
            }
        }
        let file = self.offer.manifest.files.len() + segment;
        let may_grow = !self.is_whole(segment);
        Ok(Some(Part { file, from: begun(&part_of_segment(&path), extent.len, may_grow)? }))
    }

    fn is_whole(&self, segment: usize) -> bool {
        self.offer.segments[segment].len == self.offer.segment_size
    }

    /// `None` if it is not there.
    fn check(&self, dir: &str, extent: Extent) -> Result<Option<Checked>, Error> {
        let dir = self.dir(dir);
        if !dir.join(segment_name(extent.base)).exists() {
            return Ok(None);
        }
        check(&dir, self.group, self.offer.segment_size, extent).map(Some)
    }

    /// Writes a part of a file, which must follow what is there. Blocks.
    pub(crate) fn write(
        &mut self,
        file: usize,
        at: u64,
        data: &[u8],
        crc: u32,
    ) -> Result<(), Error> {
        let found = crc32fast::hash(data);
        if found != crc {
            let file = format!("part of file {file}");
            return Err(Error::Checksum { file, expected: crc, found });
        }
        let whole =
            self.offer.len_of(file).ok_or(Error::Malformed("a file that was not offered"))?;
        if self.open.as_ref().is_none_or(|open| open.file != file) {
            self.open = Some(Open::new(file, self.path_of(file))?);
        }
        let open = self.open.as_mut().expect("just opened");
        let end = at + data.len() as u64;
        if at != open.len || end > whole {
            return Err(Error::Malformed("a part that does not follow"));
        }
        open.handle.write_all_at(data, at).map_err(failed("write", &open.path))?;
        open.len = end;
        open.unsynced += data.len() as u64;
        if open.unsynced >= SYNC_EVERY || end == whole {
            open.handle.sync_data().map_err(failed("sync", &open.path))?;
            open.unsynced = 0;
        }
        if end == whole {
            self.open = None;
            self.arrived(file)?;
        }
        Ok(())
    }

    /// The file being written.
    fn path_of(&self, file: usize) -> PathBuf {
        match file.checked_sub(self.offer.manifest.files.len()) {
            None => part(&self.dir(STATE).join(key(&self.offer.manifest.files[file]))),
            Some(segment) => {
                let name = segment_name(self.offer.segments[segment].base);
                part_of_segment(&self.dir(LOG).join(name))
            }
        }
    }

    /// A file has all its bytes: they count if they are what was promised.
    fn arrived(&mut self, file: usize) -> Result<(), Error> {
        let path = self.path_of(file);
        let Some(segment) = file.checked_sub(self.offer.manifest.files.len()) else {
            let wanted = &self.offer.manifest.files[file];
            let found = files::crc(&path)?;
            if found != wanted.crc {
                files::remove_file(&path)?;
                let (file, expected) = (wanted.name.clone(), wanted.crc);
                return Err(Error::Checksum { file, expected, found });
            }
            return files::rename(&path, &self.dir(STATE).join(key(wanted)));
        };
        // The last segment may grow yet, should this attempt fail.
        if !self.is_whole(segment) {
            return Ok(());
        }
        let extent = self.offer.segments[segment];
        let whole = self.dir(LOG).join(segment_name(extent.base));
        files::rename(&path, &whole)?;
        match check(&self.dir(LOG), self.group, self.offer.segment_size, extent) {
            Ok(checked) => self.checked[segment] = Some(checked),
            Err(error) => {
                files::remove_file(&whole)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Puts everything together, checked and durable, ready to be installed. Blocks.
    ///
    /// # Errors
    /// `Malformed` if something has not arrived; `Checksum`, `Gap`, `Log` if it is not what was
    /// offered; `Io`.
    pub(crate) fn assemble(mut self) -> Result<PathBuf, Error> {
        self.open = None;
        let to = self.assembled.clone();
        for dir in [STATE, LOG] {
            files::create_dir(&to.join(dir))?;
        }
        for file in &self.offer.manifest.files {
            let arrived = self.dir(STATE).join(key(file));
            // Nobody sends an empty file.
            if file.len == 0 {
                File::create(&arrived).map_err(failed("create", &arrived))?;
            }
            let at = to.join(STATE).join(&file.name);
            fs::rename(&arrived, &at).map_err(failed("rename", &arrived))?;
        }
        for (segment, extent) in self.offer.segments.clone().into_iter().enumerate() {
            self.place(segment, extent, &to.join(LOG))?;
        }
        self.check_joints()?;
        files::sync_dir(&to.join(STATE))?;
        files::sync_dir(&to.join(LOG))?;
        let end = self.offer.segments.last().map(|newest| newest.base + newest.len);
        Manifest { log_end: end, ..self.offer.manifest.clone() }.store(&to)?;
        files::sync_dir(to.parent().expect("it lies in the store"))?;
        files::remove_dir(&self.incoming)?;
        Ok(to)
    }

    fn place(&mut self, segment: usize, extent: Extent, to: &Path) -> Result<(), Error> {
        let name = segment_name(extent.base);
        let at = to.join(&name);
        if self.checked[segment].is_some() {
            let linked = self.dir(LINKED).join(&name);
            let from = if linked.exists() { linked } else { self.dir(LOG).join(&name) };
            return fs::rename(&from, &at).map_err(failed("rename", &from));
        }
        let from = part_of_segment(&self.dir(LOG).join(&name));
        if self.is_whole(segment) || !from.exists() || files::len(&from)? != extent.len {
            return Err(Error::Malformed("not everything has arrived"));
        }
        fs::rename(&from, &at).map_err(failed("rename", &from))?;
        // It goes on being written, and must not run out of space in the middle.
        let disk = disk(to)?;
        let fill = || {
            let file = disk.open(&name)?;
            file.preallocate(self.offer.segment_size)?;
            file.sync_data()
        };
        fill().map_err(failed("fill", &at))?;
        self.checked[segment] = Some(check(to, self.group, self.offer.segment_size, extent)?);
        Ok(())
    }

    fn check_joints(&self) -> Result<(), Error> {
        let checked = self.checked.iter().flatten();
        for ((older, newer), extent) in
            checked.clone().zip(checked.skip(1)).zip(&self.offer.segments[1..])
        {
            if older.after != newer.before {
                return Err(Error::Gap { base: extent.base.0 });
            }
        }
        Ok(())
    }
}

impl Open {
    fn new(file: usize, path: PathBuf) -> Result<Open, Error> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let handle = options.open(&path).map_err(failed("create", &path))?;
        let len = files::len(&path)?;
        Ok(Open { file, path, handle, len, unsynced: 0 })
    }
}

impl OwnLog<'_> {
    /// Whether this log has the whole segment, byte for byte, and for good.
    fn has(&self, extent: Extent) -> Result<bool, Error> {
        let state = self.log.state();
        let synced = state.synced >= extent.base + extent.len;
        // What follows must be committed too: cutting it would touch the filling.
        let fixed = state.committed > Some(extent.last.index) && state.start <= extent.base;
        Ok(synced && fixed && holds(self.log, extent.last)?)
    }
}

fn disk(dir: &Path) -> Result<Arc<dyn Disk>, Error> {
    Ok(Arc::new(FileDisk::new(dir).map_err(failed("open", dir))?))
}

fn check(dir: &Path, group: GroupId, size: u64, extent: Extent) -> Result<Checked, Error> {
    Ok(check_segment(&disk(dir)?, group, size, extent)?)
}

/// Names a file by what is in it: other nodes use the same names for other content.
fn key(file: &StateFile) -> String {
    format!("{:08x}-{}-{}", file.crc, file.len, file.name)
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PART);
    name.into()
}

fn part_of_segment(path: &Path) -> PathBuf {
    path.with_extension("part")
}

/// How much of a file is there. One that has grown too long is dropped; so is one that has all its
/// bytes but was not checked before the node stopped, unless it `may_grow`.
fn begun(path: &Path, whole: u64, may_grow: bool) -> Result<u64, Error> {
    if !path.exists() {
        return Ok(0);
    }
    match files::len(path)? {
        len if len < whole || (len == whole && may_grow) => Ok(len),
        _ => files::remove_file(path).map(|()| 0),
    }
}
