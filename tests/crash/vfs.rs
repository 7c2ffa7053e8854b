//! A file system for SQLite that forgets at a kill whatever was not synced.
//!
//! It stands in front of the system's own ("unix"). Database, write-ahead log and journal are read and written in memory
//! ([`Image`], one for each file, whoever opened it) until SQLite syncs them. Locks, shared memory (which SQLite makes
//! anew after a crash), names and everything else are the system's. Files appear and go at once.
//!
//! A foreign process must not read the database while this one runs: it would see this one's shared memory, and a log that
//! lacks what that speaks of.

// SQLite takes a file system as tables of C functions, which is the reason for this module to exist. The rules that make
// each block sound: SQLite calls a function of `METHODS` only with a file that `open` has set up; such a file is a
// `CrashFile` with the system's file behind it, in memory that SQLite gave for both; buffers are as long as it says.
#![allow(unsafe_code, reason = "SQLite's interface for file systems is C")]

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use libsqlite3_sys::{
    SQLITE_ACCESS_EXISTS, SQLITE_CANTOPEN, SQLITE_FCNTL_PRAGMA, SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHORT_READ, SQLITE_OK, SQLITE_OPEN_MAIN_DB,
    SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_WAL, sqlite3, sqlite3_api_routines, sqlite3_auto_extension, sqlite3_exec, sqlite3_file, sqlite3_filename,
    sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::image::Image;

/// Its name among SQLite's file systems.
pub const NAME: &CStr = c"crash";

/// How it behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// With a seed: some of the unsynced bytes reach the disk at random, out of order and torn.
    pub tear: Option<u64>,
    /// Every connection has `PRAGMA synchronous=OFF`, whatever it asks for.
    pub synchronous_off: bool,
}

impl Options {
    /// What the environment says: `SKEP_CRASH_TEAR=SEED`, `SKEP_CRASH_SYNCHRONOUS=OFF`.
    ///
    /// # Panics
    /// When the seed is no number.
    pub fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self {
            tear: variable("SKEP_CRASH_TEAR").map(|seed| seed.parse().expect("SKEP_CRASH_TEAR is a number")),
            synchronous_off: variable("SKEP_CRASH_SYNCHRONOUS").is_some_and(|mode| mode == "OFF"),
        }
    }
}

struct Shim {
    system: AtomicPtr<sqlite3_vfs>,
    tear: Option<Mutex<StdRng>>,
    synchronous_off: bool,
    images: Mutex<Images>,
}

/// By device and inode: a file that was renamed is the same, one made anew at its place is another.
type Images = HashMap<(u64, u64), Arc<Mutex<Image>>>;

static SHIM: OnceLock<Shim> = OnceLock::new();

/// Makes it the file system of every connection that this process opens from here on.
///
/// # Panics
/// When SQLite has no file system, or at the second call.
pub fn register(options: &Options) {
    // SAFETY: both are SQLite's to call at any time; `Box::leak` keeps the table for ever, as SQLite wants. The functions
    // that are copied ignore the table through which they are called.
    unsafe {
        let system = sqlite3_vfs_find(ptr::null());
        assert!(!system.is_null(), "SQLite has a file system");
        let tear = options.tear.map(|seed| Mutex::new(StdRng::seed_from_u64(seed)));
        let shim = Shim { system: AtomicPtr::new(system), tear, synchronous_off: options.synchronous_off, images: Mutex::default() };
        assert!(SHIM.set(shim).is_ok(), "registered once");
        let ours = sqlite3_vfs {
            szOsFile: (*system).szOsFile + c_int::try_from(size_of::<CrashFile>()).expect("16 bytes"),
            pNext: ptr::null_mut(),
            zName: NAME.as_ptr(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            ..*system
        };
        assert_eq!(sqlite3_vfs_register(Box::leak(Box::new(ours)), 1), SQLITE_OK);
        if options.synchronous_off {
            assert_eq!(sqlite3_auto_extension(Some(switch_off)), SQLITE_OK);
        }
    }
}

/// For each new connection. The daemon's own `PRAGMA synchronous` comes later and is swallowed by [`control`].
unsafe extern "C" fn switch_off(connection: *mut sqlite3, _: *mut *mut c_char, _: *const sqlite3_api_routines) -> c_int {
    // SAFETY: SQLite hands over a connection that is open.
    unsafe { sqlite3_exec(connection, c"PRAGMA synchronous = OFF".as_ptr(), None, ptr::null_mut(), ptr::null_mut()) }
}

impl Shim {
    fn get() -> &'static Self {
        SHIM.get().expect("SQLite calls what was registered")
    }

    fn system() -> *mut sqlite3_vfs {
        Self::get().system.load(Ordering::Relaxed)
    }

    /// The image of the file at `path`, which exists.
    fn image(&self, path: &Path) -> io::Result<Arc<Mutex<Image>>> {
        // The lock is held while the file is opened: to close a second descriptor of a file takes this process's locks away.
        let mut images = lock(&self.images);
        let file = std::fs::metadata(path)?;
        let key = (file.dev(), file.ino());
        if let Some(image) = images.get(&key) {
            return Ok(image.clone());
        }
        let image = Arc::new(Mutex::new(Image::open(path)?));
        images.insert(key, image.clone());
        Ok(image)
    }

    fn known(&self, path: &Path, forget: bool) -> Option<Arc<Mutex<Image>>> {
        let file = std::fs::metadata(path).ok()?;
        let key = (file.dev(), file.ino());
        let mut images = lock(&self.images);
        if forget { images.remove(&key) } else { images.get(&key).cloned() }
    }

    /// What the system may do with unsynced bytes at any time: one time in `one_in`.
    fn perhaps_tear(&self, image: &Image, one_in: u32) {
        let Some(random) = &self.tear else { return };
        let mut random = lock(random);
        if random.random_ratio(1, one_in) {
            // An error of the disk is met again, and told, by the sync.
            let _ = image.tear(&mut *random);
            if random.random_ratio(1, 4) {
                linger(Duration::from_micros(random.random_range(0..4_000)));
            }
        }
    }
}

// A kill that comes now finds the file half written.
#[allow(clippy::disallowed_methods, reason = "a slow disk blocks the thread that writes, too")]
fn linger(time: Duration) {
    std::thread::sleep(time);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open file; the system's file lies behind it.
#[repr(C)]
struct CrashFile {
    base: sqlite3_file,
    /// From `Arc::into_raw`; given back by [`close`].
    image: *const Mutex<Image>,
}

fn system_file(file: *mut sqlite3_file) -> *mut sqlite3_file {
    file.cast::<CrashFile>().wrapping_add(1).cast()
}

/// SAFETY: `file` was set up by [`open`] and is not closed.
unsafe fn image_of<'f>(file: *mut sqlite3_file) -> MutexGuard<'f, Image> {
    // SAFETY: as the caller promises, so the `Arc` that the pointer is from is alive.
    unsafe { lock(&*(*file.cast::<CrashFile>()).image) }
}

/// SAFETY: `name` is a C string.
unsafe fn path_of<'n>(name: *const c_char) -> &'n Path {
    // SAFETY: as the caller promises.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

unsafe extern "C" fn open(_: *mut sqlite3_vfs, name: sqlite3_filename, file: *mut sqlite3_file, flags: c_int, out: *mut c_int) -> c_int {
    const OURS: c_int = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL;
    let system = Shim::system();
    // SAFETY: SQLite's `file` has room for both, and its arguments are handed on as they came. A file that is not ours is
    // the system's alone, at the beginning of the memory.
    unsafe {
        let open = (*system).xOpen.expect("every file system opens");
        if flags & OURS == 0 || name.is_null() {
            return open(system, name, file, flags, out);
        }
        // Without methods SQLite closes nothing when this fails.
        (*file).pMethods = ptr::null();
        let theirs = system_file(file);
        let code = open(system, name, theirs, flags, out);
        let image = if code == SQLITE_OK { Shim::get().image(path_of(name)).ok() } else { None };
        let Some(image) = image else {
            if !(*theirs).pMethods.is_null() {
                close_system(theirs);
            }
            return if code == SQLITE_OK { SQLITE_CANTOPEN } else { code };
        };
        *file.cast::<CrashFile>() = CrashFile { base: sqlite3_file { pMethods: &raw const METHODS }, image: Arc::into_raw(image) };
        SQLITE_OK
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: `name` is SQLite's; who has the file open keeps its image.
    unsafe {
        Shim::get().known(path_of(name), true);
        (*Shim::system()).xDelete.expect("every file system deletes")(Shim::system(), name, sync_directory)
    }
}

/// The system says of an empty file that it does not exist; what counts is what the process has written.
unsafe extern "C" fn access(_: *mut sqlite3_vfs, name: *const c_char, flags: c_int, result: *mut c_int) -> c_int {
    // SAFETY: `name` and `result` are SQLite's.
    unsafe {
        if flags == SQLITE_ACCESS_EXISTS
            && let Some(image) = Shim::get().known(path_of(name), false)
        {
            *result = c_int::from(lock(&image).len() > 0);
            return SQLITE_OK;
        }
        (*Shim::system()).xAccess.expect("every file system has access")(Shim::system(), name, flags, result)
    }
}

/// SAFETY: `file` is a file of the system's that is open.
unsafe fn close_system(file: *mut sqlite3_file) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { (*(*file).pMethods).xClose.expect("every file closes")(file) }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes once. The image stays with the process, as a page cache would.
    unsafe {
        drop(Arc::from_raw((*file.cast::<CrashFile>()).image));
        close_system(system_file(file))
    }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, buffer: *mut c_void, length: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: `buffer` is `length` bytes of SQLite's.
    let (image, buffer) = unsafe { (image_of(file), std::slice::from_raw_parts_mut(buffer.cast::<u8>(), size(length))) };
    if image.read(size(at), buffer) { SQLITE_OK } else { SQLITE_IOERR_SHORT_READ }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, bytes: *const c_void, length: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: `bytes` are `length` bytes of SQLite's.
    let (mut image, bytes) = unsafe { (image_of(file), std::slice::from_raw_parts(bytes.cast::<u8>(), size(length))) };
    image.write(size(at), bytes);
    Shim::get().perhaps_tear(&image, 16);
    SQLITE_OK
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: sqlite3_int64) -> c_int {
    // SAFETY: the file is open.
    unsafe { image_of(file) }.truncate(size(length));
    SQLITE_OK
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    // SAFETY: the file is open.
    let mut image = unsafe { image_of(file) };
    Shim::get().perhaps_tear(&image, 2);
    if image.sync().is_ok() { SQLITE_OK } else { SQLITE_IOERR_FSYNC }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, result: *mut sqlite3_int64) -> c_int {
    // SAFETY: the file is open, and `result` is SQLite's.
    unsafe { *result = sqlite3_int64::try_from(image_of(file).len()).expect("less than memory") };
    SQLITE_OK
}

unsafe extern "C" fn control(file: *mut sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: the argument of SQLITE_FCNTL_PRAGMA is an array of C strings: answer, name, value or null. The system's file
    // is open.
    unsafe {
        if operation == SQLITE_FCNTL_PRAGMA && Shim::get().synchronous_off {
            let [_, name, value] = *argument.cast::<[*const c_char; 3]>();
            let is = |text: *const c_char, wanted: &str| CStr::from_ptr(text).to_bytes().eq_ignore_ascii_case(wanted.as_bytes());
            if is(name, "synchronous") && !value.is_null() && !is(value, "OFF") {
                // Done, says this answer, and SQLite does nothing more.
                return SQLITE_OK;
            }
        }
        let theirs = system_file(file);
        (*(*theirs).pMethods).xFileControl.expect("every file has controls")(theirs, operation, argument)
    }
}

fn size<N: TryInto<usize>>(number: N) -> usize {
    number.try_into().unwrap_or_else(|_| panic!("SQLite gives no negative sizes"))
}

/// Functions that hand on to the system's file.
macro_rules! the_systems {
    ($($name:ident is $method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($argument: $type),*) -> $result {
            let theirs = system_file(file);
            // SAFETY: the system's file is open as long as ours, and the arguments are handed on as they came.
            unsafe { (*(*theirs).pMethods).$method.expect("\"unix\" has all of version 2")(theirs, $($argument),*) }
        }
    )*};
}

the_systems! {
    take_lock is xLock(level: c_int) -> c_int;
    unlock is xUnlock(level: c_int) -> c_int;
    check_lock is xCheckReservedLock(result: *mut c_int) -> c_int;
    sector_size is xSectorSize() -> c_int;
    characteristics is xDeviceCharacteristics() -> c_int;
    shm_map is xShmMap(page: c_int, bytes: c_int, extend: c_int, result: *mut *mut c_void) -> c_int;
    shm_lock is xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier is xShmBarrier() -> ();
    shm_unmap is xShmUnmap(delete: c_int) -> c_int;
}

// Version 2 has no mapping of the database into memory, past which there would be no way.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(take_lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
