//! The store on a disk: RocksDB.
//!
//! There is no write-ahead log, because the CommitLog is one. Memtables of all families are
//! flushed atomically, so what a crash leaves is a prefix of the batches.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle,
    DBCompressionType, FlushOptions, LogLevel, Options, ReadOptions, UniversalCompactOptions,
    WriteBatch, WriteOptions,
};

use tokio::sync::watch;

use crate::data_dir::empty;

use super::{Batch, Durable, Edit, Error, Family, Kv, Look, Visit};

/// Where and how large.
#[derive(Debug, Clone)]
pub struct RocksConfig {
    /// Directory of the store. Created when missing.
    pub path: PathBuf,
    /// Memory for blocks read from files, in all. Default 16 MiB.
    pub cache_bytes: usize,
    /// A family's memtable is flushed at this size even if nobody asks. Default 16 MiB.
    pub memtable_bytes: usize,
}

impl RocksConfig {
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache_bytes: 16 << 20, memtable_bytes: 16 << 20 }
    }
}

/// A RocksDB database.
pub struct Rocks {
    config: RocksConfig,
    /// Closed only while it is replaced.
    db: RwLock<Option<Open>>,
    trims: Mutex<Trims>,
    /// Somebody has met damage.
    damaged: watch::Sender<bool>,
}

struct Open(DB);

/// Removing files is durable at once, while the batches that made them superfluous are not: so a
/// trim waits until a flush that was asked for after it is through.
#[derive(Debug, Default)]
struct Trims {
    asked: Vec<(Family, Vec<u8>)>,
    /// Covered by the last flush asked for.
    covered: Vec<(Family, Vec<u8>)>,
}

impl Rocks {
    /// Opens the store, or creates an empty one.
    ///
    /// # Errors
    /// The directory cannot be used, is in use, or holds a damaged store.
    pub fn open(config: &RocksConfig) -> Result<Self, Error> {
        let db = RwLock::new(Some(Open::new(config)?));
        let damaged = watch::Sender::new(false);
        Ok(Self { config: config.clone(), db, trims: Mutex::default(), damaged })
    }

    /// Opens a store to look at it. Nothing is written to its directory.
    ///
    /// # Errors
    /// There is no store, or it is damaged.
    pub fn open_read_only(config: &RocksConfig) -> Result<Self, Error> {
        let mut options = options(config.memtable_bytes);
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        // Its own notes go elsewhere.
        options.set_db_log_dir(std::env::temp_dir());
        let opened =
            DB::open_cf_descriptors_read_only(&options, &config.path, families(config), false);
        let open = Open(opened.map_err(|source| Error::Store { action: "open", source })?);
        let damaged = watch::Sender::new(false);
        let db = RwLock::new(Some(open));
        Ok(Self { config: config.clone(), db, trims: Mutex::default(), damaged })
    }

    /// Turns true when anybody meets damage, whatever they then do.
    pub fn damaged(&self) -> watch::Receiver<bool> {
        self.damaged.subscribe()
    }

    fn with<T>(&self, work: impl FnOnce(&Open) -> Result<T, Error>) -> Result<T, Error> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let done = work(db.as_ref().expect("nobody uses a store that is being replaced"));
        if let Err(error) = &done
            && error.is_damage()
            && !self.damaged.send_replace(true)
        {
            tracing::error!(%error, "the state is damaged");
        }
        done
    }
}

impl Open {
    fn new(config: &RocksConfig) -> Result<Self, Error> {
        std::fs::create_dir_all(&config.path).map_err(io("create directory", &config.path))?;
        DB::open_cf_descriptors(&options(config.memtable_bytes), &config.path, families(config))
            .map(Self)
            .map_err(|source| Error::Store { action: "open", source })
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.0.cf_handle(family.name()).expect("every family is opened")
    }

    /// Every flush asked for so far is through.
    fn is_flushed(&self) -> Result<bool, Error> {
        for family in Family::ALL {
            let waiting = self
                .0
                .property_int_value_cf(self.family(family), "rocksdb.num-immutable-mem-table")
                .map_err(|source| Error::Store { action: "ask", source })?;
            if waiting != Some(0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn remove_files_below(&self, family: Family, key: &[u8]) -> Result<(), Error> {
        self.0
            .delete_file_in_range_cf(self.family(family), &[][..], key)
            .map_err(|source| Error::Store { action: "trim", source })
    }
}

impl Kv for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with(|open| open.get(family, key))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        self.with(|open| open.scan(family, from, below, visit))
    }

    fn write(&self, batch: &Batch) -> Result<(), Error> {
        self.with(|open| open.write(batch))
    }

    fn flush(&self, when: Durable) -> Result<(), Error> {
        let mut trims = self.trims.lock().unwrap_or_else(PoisonError::into_inner);
        self.with(|open| {
            if open.is_flushed()? {
                for (family, key) in std::mem::take(&mut trims.covered) {
                    open.remove_files_below(family, &key)?;
                }
            }
            open.flush(when)
        })?;
        let asked = std::mem::take(&mut trims.asked);
        trims.covered.extend(asked);
        Ok(())
    }

    fn trim(&self, family: Family, key: &[u8]) -> Result<(), Error> {
        let mut trims = self.trims.lock().unwrap_or_else(PoisonError::into_inner);
        // Keys of trimmed families ascend, so the newest trim of a family says it all.
        trims.asked.retain(|(other, _)| *other != family);
        trims.asked.push((family, key.to_vec()));
        Ok(())
    }

    fn checkpoint(&self, into: &Path, look: &mut Look<'_>) -> Result<(), Error> {
        let store = |action| move |source| Error::Store { action, source };
        self.with(|open| {
            // Flushes what is in memory, and links the files.
            let copy = Checkpoint::new(&open.0).map_err(store("copy"))?;
            copy.create_checkpoint(into).map_err(store("copy"))
        })?;
        {
            let config = RocksConfig { path: into.to_owned(), ..self.config.clone() };
            let (options, families) = (options(config.memtable_bytes), families(&config));
            let opened = DB::open_cf_descriptors_read_only(&options, into, families, false);
            let db = RwLock::new(Some(Open(opened.map_err(store("open the copy of"))?)));
            look(&Self {
                config,
                db,
                trims: Mutex::default(),
                damaged: watch::Sender::new(false),
            })?;
        }
        // Notes that opening it has left.
        for path in plain_files(into)? {
            if name(&path).starts_with("LOG") || name(&path) == "LOCK" {
                std::fs::remove_file(&path).map_err(io("remove", &path))?;
            }
        }
        sync(into)
    }

    fn reread(
        &self,
        family: Family,
        from: &[u8],
        bytes: u64,
    ) -> Result<(u64, Option<Vec<u8>>), Error> {
        self.with(|open| open.reread(family, from, bytes))
    }

    fn restore(&self, from: &Path) -> Result<(), Error> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever opens the directory must be the only one.
        *db = None;
        *self.trims.lock().unwrap_or_else(PoisonError::into_inner) = Trims::default();
        let path = &self.config.path;
        std::fs::create_dir_all(path).map_err(io("create directory", path))?;
        empty(path).map_err(io("empty", path))?;
        for file in plain_files(from)? {
            let to = path.join(&*name(&file));
            // Tables never change; everything else is written to, and must stay as it is in the copy.
            let is_table = file.extension().is_some_and(|extension| extension == "sst");
            if !is_table || !linked(&file, &to)? {
                std::fs::copy(&file, &to).map_err(io("copy", &to))?;
                sync(&to)?;
            }
        }
        sync(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent)?;
        }
        *db = Some(Open::new(&self.config)?);
        Ok(())
    }
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + use<'a> {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// False where the names are on different file systems: the state may have one of its own.
fn linked(from: &Path, to: &Path) -> Result<bool, Error> {
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(false),
        linked => linked.map(|()| true).map_err(io("link", to)),
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn plain_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(dir).map_err(io("list", dir))?;
    let paths = entries.map(|entry| Ok(entry.map_err(io("list", dir))?.path()));
    paths.filter(|path| !path.as_ref().is_ok_and(|path| path.is_dir())).collect()
}

/// Makes a file, or the names in a directory, durable.
fn sync(path: &Path) -> Result<(), Error> {
    let opened = std::fs::File::open(path).map_err(io("open", path))?;
    opened.sync_all().map_err(io("sync", path))
}

impl Open {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.0
            .get_cf(self.family(family), key)
            .map_err(|source| Error::Store { action: "read", source })
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(below);
        let mut records = self.0.raw_iterator_cf_opt(self.family(family), options);
        records.seek(from);
        while let Some((key, value)) = records.item() {
            if visit(key, value)?.is_break() {
                return Ok(());
            }
            records.next();
        }
        records.status().map_err(|source| Error::Store { action: "scan", source })
    }

    /// The block cache is passed by: it holds what was whole when it was read.
    fn reread(
        &self,
        family: Family,
        from: &[u8],
        bytes: u64,
    ) -> Result<(u64, Option<Vec<u8>>), Error> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        options.set_readahead_size(256 << 10);
        let mut records = self.0.raw_iterator_cf_opt(self.family(family), options);
        records.seek(from);
        let mut read = 0;
        while let Some((key, value)) = records.item() {
            if read >= bytes {
                return Ok((read, Some(key.to_vec())));
            }
            read += (key.len() + value.len()) as u64;
            records.next();
        }
        records.status().map_err(|source| Error::Store { action: "read again", source })?;
        Ok((read, None))
    }

    fn write(&self, batch: &Batch) -> Result<(), Error> {
        let families = Family::ALL.map(|family| self.family(family));
        let mut changes = WriteBatch::with_capacity_bytes(batch.size() + batch.changes.len() * 8);
        for (family, edit) in batch.changes() {
            let family = families[family.index()];
            match edit {
                Edit::Put { key, value } => changes.put_cf(family, key, value),
                Edit::Delete { key } => changes.delete_cf(family, key),
                Edit::DeleteRange { from, below } => changes.delete_range_cf(family, from, below),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.0
            .write_opt(changes, &options)
            .map_err(|source| Error::Store { action: "write", source })
    }

    fn flush(&self, when: Durable) -> Result<(), Error> {
        let mut options = FlushOptions::default();
        options.set_wait(when == Durable::Now);
        let families = Family::ALL.map(|family| self.family(family));
        self.0
            .flush_cfs_opt(&families, &options)
            .map_err(|source| Error::Store { action: "flush", source })
    }
}

impl std::fmt::Debug for Rocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rocks").field("path", &self.config.path).finish_non_exhaustive()
    }
}

fn families(config: &RocksConfig) -> [ColumnFamilyDescriptor; Family::ALL.len()] {
    let cache = Cache::new_lru_cache(config.cache_bytes);
    Family::ALL.map(|f| ColumnFamilyDescriptor::new(f.name(), family_options(f, config, &cache)))
}

fn options(memtable_bytes: usize) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    // All memtables together, those being flushed included.
    options.set_db_write_buffer_size(memtable_bytes * 4);
    // One thread writes, so nothing is gained by the machinery for several.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    // Small and quick to open.
    options.set_max_open_files(256);
    options.set_table_cache_num_shard_bits(2);
    options.set_skip_stats_update_on_db_open(true);
    options.set_max_manifest_file_size(4 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn family_options(family: Family, config: &RocksConfig, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(8 << 10);
    table.set_format_version(5);
    // Bounds what open files hold in memory.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(config.memtable_bytes);
    // Room for flushes that fall behind for a moment.
    options.set_max_write_buffer_number(4);
    // Memtables grow by this much: an idle broker holds little.
    options.set_arena_block_size(128 << 10);
    options.set_target_file_size_base(16 << 20);
    options.set_max_bytes_for_level_base(64 << 20);
    match family {
        // Each queue grows at its end, all of them at once: every flush overlaps every other.
        // Merging files of like size costs the fewest rewrites.
        Family::Queue => {
            let mut universal = UniversalCompactOptions::default();
            universal.set_min_merge_width(4);
            options.set_compaction_style(DBCompactionStyle::Universal);
            options.set_universal_compaction_options(&universal);
            options.set_level_zero_file_num_compaction_trigger(8);
            options.set_level_zero_slowdown_writes_trigger(40);
            options.set_level_zero_stop_writes_trigger(60);
        }
        // Keys ascend: files never overlap and are moved down, not rewritten.
        Family::State | Family::Dedupe | Family::KeyLog | Family::Keys => {
            options.set_level_compaction_dynamic_level_bytes(true);
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    fn put(kv: &Rocks, family: Family, key: u64, value: &[u8]) {
        let mut batch = Batch::default();
        batch.put(family, &key.to_be_bytes(), value);
        kv.write(&batch).unwrap();
    }

    fn keys(kv: &Rocks, family: Family) -> Vec<u64> {
        let mut keys = vec![];
        kv.scan(family, &[], &[0xff; 9], &mut |key, _| {
            keys.push(u64::from_be_bytes(key.try_into().unwrap()));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        keys
    }

    #[test]
    fn what_was_written_is_there_after_a_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let config = RocksConfig::new(dir.path().join("kv"));
        let kv = Rocks::open(&config).unwrap();
        put(&kv, Family::State, 1, b"one");
        put(&kv, Family::Queue, 2, b"two");
        kv.flush(Durable::Now).unwrap();
        drop(kv);

        let kv = Rocks::open(&config).unwrap();
        assert_eq!(kv.get(Family::State, &1_u64.to_be_bytes()).unwrap().unwrap(), b"one");
        assert_eq!(keys(&kv, Family::Queue), [2]);
        assert_eq!(kv.get(Family::State, &2_u64.to_be_bytes()).unwrap(), None);
    }

    #[test]
    fn a_scan_has_both_ends_and_can_stop() {
        let dir = tempfile::tempdir().unwrap();
        let kv = Rocks::open(&RocksConfig::new(dir.path())).unwrap();
        (0..10).for_each(|key| put(&kv, Family::Keys, key, b""));
        let mut seen = vec![];
        kv.scan(Family::Keys, &3_u64.to_be_bytes(), &8_u64.to_be_bytes(), &mut |key, _| {
            seen.push(key[7]);
            Ok(if key[7] == 6 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .unwrap();
        assert_eq!(seen, [3, 4, 5, 6]);
    }

    #[test]
    fn a_range_goes_with_its_batch_and_what_comes_after_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let kv = Rocks::open(&RocksConfig::new(dir.path())).unwrap();
        (0..10).for_each(|key| put(&kv, Family::Queue, key, b""));
        let mut batch = Batch::default();
        batch.delete_range(Family::Queue, &3_u64.to_be_bytes(), &8_u64.to_be_bytes());
        batch.put(Family::Queue, &5_u64.to_be_bytes(), b"new");
        kv.write(&batch).unwrap();
        assert_eq!(keys(&kv, Family::Queue), [0, 1, 2, 5, 8, 9]);
    }

    #[test]
    fn a_trim_waits_for_the_flush_that_covers_it() {
        let dir = tempfile::tempdir().unwrap();
        let kv = Rocks::open(&RocksConfig::new(dir.path())).unwrap();
        put(&kv, Family::Dedupe, 1, b"old");
        kv.flush(Durable::Now).unwrap();
        // Only files below the first level are removed.
        kv.with(|open| {
            let family = open.family(Family::Dedupe);
            open.0.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
            Ok(())
        })
        .unwrap();
        put(&kv, Family::Dedupe, 2, b"new");

        kv.trim(Family::Dedupe, &2_u64.to_be_bytes()).unwrap();
        kv.flush(Durable::Now).unwrap();
        assert_eq!(keys(&kv, Family::Dedupe), [1, 2]);
        kv.flush(Durable::Now).unwrap();
        assert_eq!(keys(&kv, Family::Dedupe), [2]);
    }

    #[test]
    fn a_copy_holds_what_was_written_before_and_can_take_the_stores_place() {
        let dir = tempfile::tempdir().unwrap();
        let kv = Rocks::open(&RocksConfig::new(dir.path().join("kv"))).unwrap();
        put(&kv, Family::State, 1, b"one");
        put(&kv, Family::Queue, 2, b"two");
        let copy = dir.path().join("copy");
        let mut seen = None;
        kv.checkpoint(&copy, &mut |copy| {
            seen = copy.get(Family::State, &1_u64.to_be_bytes())?;
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.as_deref(), Some(&b"one"[..]));
        put(&kv, Family::State, 1, b"later");
        put(&kv, Family::Keys, 3, b"more");

        let other = Rocks::open(&RocksConfig::new(dir.path().join("other"))).unwrap();
        put(&other, Family::State, 9, b"gone");
        other.flush(Durable::Now).unwrap();
        for _ in 0..2 {
            other.restore(&copy).unwrap();
            assert_eq!(other.get(Family::State, &1_u64.to_be_bytes()).unwrap().unwrap(), b"one");
            assert_eq!(keys(&other, Family::State), [1]);
            assert_eq!(keys(&other, Family::Queue), [2]);
            // The copy stays as it is, whatever happens to the store.
            put(&other, Family::State, 1, b"changed");
            put(&other, Family::Queue, 5, b"five");
            other.flush(Durable::Now).unwrap();
        }
        drop(other);
        let other = Rocks::open(&RocksConfig::new(dir.path().join("other"))).unwrap();
        assert_eq!(keys(&other, Family::Queue), [2, 5]);
        assert_eq!(keys(&kv, Family::Keys), [3], "the original goes on");
    }

    #[test]
    fn a_store_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = RocksConfig::new(dir.path());
        let _held = Rocks::open(&config).unwrap();
        assert!(matches!(Rocks::open(&config), Err(Error::Store { action: "open", .. })));
    }
}
