//! The files: one for each address that is taken, named after it, with the container's id and the interface in it; and
//! for each set of ranges the address that was handed out last. Other programs know this form.
//!
//! Whoever changes anything holds the lock. A file appears with all its contents or not at all. One without an owner was
//! left by a program that writes in two steps and died between them; as the lock is ours, it is nobody's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::super::error::CniError;

const LOCK: &str = "lock";
const LAST_RESERVED: &str = "last_reserved_ip.";
/// What is written is called this until it is complete.
const UNFINISHED: &str = ".unfinished";
/// A file with an owner is far shorter.
const OWNER_BYTES_MAX: u64 = 4096;

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The container's id.
    pub(crate) container: String,
    /// The interface inside; empty in files of very old versions.
    pub(crate) interface: String,
}

impl Owner {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (container, interface) = text.split_once("\r\n").unwrap_or((text, ""));
        (!container.is_empty()).then(|| Self { container: container.to_owned(), interface: interface.to_owned() })
    }

    /// Whether it is this interface's, as far as it is known.
    pub(crate) fn is_interface(&self, interface: &str) -> bool {
        self.interface.is_empty() || self.interface == interface
    }
}

/// The addresses of one network, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens the directory, makes it if need be, and waits for the lock.
    ///
    /// # Errors
    /// It can't be made or locked.
    pub(crate) fn open(dir: &Path) -> Result<Self, CniError> {
        fs::create_dir_all(dir).map_err(|source| CniError::file("make", dir, &source))?;
        let path = dir.join(LOCK);
        let locked = File::options().create(true).truncate(false).write(true).open(&path);
        let locked = locked.and_then(|file| file.lock().map(|()| file));
        let lock = locked.map_err(|source| CniError::file("lock", &path, &source))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// The same, if there is such a directory at all.
    ///
    /// # Errors
    /// It can't be locked.
    pub(crate) fn open_existing(dir: &Path) -> Result<Option<Self>, CniError> {
        if dir.is_dir() { Self::open(dir).map(Some) } else { Ok(None) }
    }

    fn failed(&self, what: &str) -> impl Fn(io::Error) -> CniError {
        let (what, dir) = (what.to_owned(), self.dir.clone());
        move |source| CniError::file(&what, &dir, &source)
    }

    /// Every address that has a file, with its owner if it has one.
    ///
    /// # Errors
    /// The directory or a file can't be read.
    pub(crate) fn all(&self) -> Result<Vec<(IpAddr, Option<Owner>)>, CniError> {
        let failed = self.failed("read");
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            let Some(address) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(text) = self.read(&name.to_string_lossy())? {
                found.push((address, Owner::parse(&text)));
            }
        }
        Ok(found)
    }

    /// The contents of a file, if it is there; empty if it is no file of ours.
    fn read(&self, name: &str) -> Result<Option<String>, CniError> {
        let path = self.dir.join(name);
        let read = || {
            let file = File::open(&path)?;
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, OWNER_BYTES_MAX), &mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CniError::file("read", &path, &source)),
        }
    }

    /// What one container's interface has.
    ///
    /// # Errors
    /// As [`Store::all`].
    pub(crate) fn held_by(&self, container: &str, interface: &str) -> Result<Vec<IpAddr>, CniError> {
        let its = |owner: &Owner| owner.container == container && owner.is_interface(interface);
        let all = self.all()?.into_iter().filter(|(_, owner)| owner.as_ref().is_some_and(its));
        Ok(all.map(|(address, _)| address).collect())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CniError> {
        let unfinished = self.dir.join(UNFINISHED);
        let written = File::create(&unfinished)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&unfinished, self.dir.join(name)));
        written.map_err(self.failed("write into"))
    }

    /// Writes down an owner.
    ///
    /// # Errors
    /// The disk is full, or read-only.
    pub(crate) fn reserve(&self, address: IpAddr, owner: &Owner) -> Result<(), CniError> {
        self.write(&address.to_string(), &format!("{}\r\n{}", owner.container, owner.interface))
    }

    /// The address of this set that was handed out last.
    ///
    /// # Errors
    /// The file can't be read. One that makes no sense is as good as none.
    pub(crate) fn last_reserved(&self, set: usize) -> Result<Option<IpAddr>, CniError> {
        Ok(self.read(&format!("{LAST_RESERVED}{set}"))?.and_then(|text| text.trim().parse().ok()))
    }

    /// Writes down the address of this set that was handed out last.
    ///
    /// # Errors
    /// The disk is full, or read-only.
    pub(crate) fn set_last_reserved(&self, set: usize, address: IpAddr) -> Result<(), CniError> {
        self.write(&format!("{LAST_RESERVED}{set}"), &address.to_string())
    }

    /// Frees the addresses whose owner is picked, and those that have none. Returns the ones that had.
    ///
    /// # Errors
    /// A file can't be removed.
    pub(crate) fn release(&self, is_picked: impl Fn(&Owner) -> bool) -> Result<Vec<IpAddr>, CniError> {
        let mut freed = Vec::new();
        for (address, owner) in self.all()? {
            if !owner.as_ref().is_none_or(&is_picked) {
                continue;
            }
            match fs::remove_file(self.dir.join(address.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed("free in")(error)),
                _ => freed.extend(owner.map(|_| address)),
            }
        }
        Ok(freed)
    }
}
