//! The store on a disk: RocksDB.
//!
//! There is no write-ahead log, because the CommitLog is one. Memtables of all families are
//! flushed atomically, so what a crash leaves is a prefix of the batches.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle,
    DBCompressionType, FlushOptions, LogLevel, Options, ReadOptions, UniversalCompactOptions,
    WriteBatch, WriteOptions,
};

use super::{Batch, Durable, Edit, Error, Family, Kv, Visit};

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
    db: DB,
    trims: Mutex<Trims>,
}

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
        std::fs::create_dir_all(&config.path).map_err(|source| Error::Io {
            action: "create directory",
            path: config.path.clone(),
            source,
        })?;
        let cache = Cache::new_lru_cache(config.cache_bytes);
        let families = Family::ALL
            .map(|f| ColumnFamilyDescriptor::new(f.name(), family_options(f, config, &cache)));
        let db = open(&config.path, config.memtable_bytes, families)?;
        Ok(Self { db, trims: Mutex::default() })
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family is opened")
    }

    /// Every flush asked for so far is through.
    fn is_flushed(&self) -> Result<bool, Error> {
        for family in Family::ALL {
            let waiting = self
                .db
                .property_int_value_cf(self.family(family), "rocksdb.num-immutable-mem-table")
                .map_err(|source| Error::Store { action: "ask", source })?;
            if waiting != Some(0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn remove_files_below(&self, family: Family, key: &[u8]) -> Result<(), Error> {
        self.db
            .delete_file_in_range_cf(self.family(family), &[][..], key)
            .map_err(|source| Error::Store { action: "trim", source })
    }
}

impl Kv for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.db
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
        let mut records = self.db.raw_iterator_cf_opt(self.family(family), options);
        records.seek(from);
        while let Some((key, value)) = records.item() {
            if visit(key, value)?.is_break() {
                return Ok(());
            }
            records.next();
        }
        records.status().map_err(|source| Error::Store { action: "scan", source })
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
        self.db
            .write_opt(changes, &options)
            .map_err(|source| Error::Store { action: "write", source })
    }

    fn flush(&self, when: Durable) -> Result<(), Error> {
        let mut trims = self.trims.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_flushed()? {
            for (family, key) in std::mem::take(&mut trims.covered) {
                self.remove_files_below(family, &key)?;
            }
        }
        let mut options = FlushOptions::default();
        options.set_wait(when == Durable::Now);
        let families = Family::ALL.map(|family| self.family(family));
        self.db
            .flush_cfs_opt(&families, &options)
            .map_err(|source| Error::Store { action: "flush", source })?;
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
}

impl std::fmt::Debug for Rocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rocks").field("path", &self.db.path()).finish_non_exhaustive()
    }
}

fn open(
    path: &Path,
    memtable_bytes: usize,
    families: impl IntoIterator<Item = ColumnFamilyDescriptor>,
) -> Result<DB, Error> {
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
    DB::open_cf_descriptors(&options, path, families)
        .map_err(|source| Error::Store { action: "open", source })
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
        kv.db.compact_range_cf(kv.family(Family::Dedupe), None::<&[u8]>, None::<&[u8]>);
        put(&kv, Family::Dedupe, 2, b"new");

        kv.trim(Family::Dedupe, &2_u64.to_be_bytes()).unwrap();
        kv.flush(Durable::Now).unwrap();
        assert_eq!(keys(&kv, Family::Dedupe), [1, 2]);
        kv.flush(Durable::Now).unwrap();
        assert_eq!(keys(&kv, Family::Dedupe), [2]);
    }

    #[test]
    fn a_store_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = RocksConfig::new(dir.path());
        let _held = Rocks::open(&config).unwrap();
        assert!(matches!(Rocks::open(&config), Err(Error::Store { action: "open", .. })));
    }
}
