//! Sessions and their subjects' lists, data and handles: do they name each other?

use std::collections::BTreeMap;

use cloakroom_core::session::Session;
use cloakroom_core::types::{Partition, Sid, Subject};
use cloakroom_store::{Batch, Key, Kind, Record, Review, Store, StoreError, Versioned};

use super::events::Logged;
use super::feed::Told;
use super::filing::Filed;
use super::{Check, Fault, PAGE, is_live, review_of, session_of, version_of};

impl<S: Store> Check<'_, S> {
    /// Lists that name sessions which aren't there.
    pub(super) async fn indices(&mut self, partition: Partition) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.page(partition, Kind::Index, after.as_ref(), PAGE).await?;
            self.looked.records += page.len() as u64;
            for (key, found) in &page {
                let (Key::Index(subject), Some(sids)) = (key, found.record.as_index()) else {
                    continue;
                };
                if !self.stray(partition, subject, sids).await?.is_empty() {
                    self.mend_index(partition, subject).await?;
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().map(|(key, _)| key.clone());
        }
    }

    /// What of a list leads nowhere.
    async fn stray(
        &self,
        partition: Partition,
        subject: &Subject,
        sids: &[Sid],
    ) -> Result<Vec<Sid>, StoreError> {
        let mut stray = Vec::new();
        for some in sids.chunks(PAGE) {
            let keys: Vec<Key> = some.iter().map(|sid| Key::Session(*sid)).collect();
            let found = self.store.load(partition, &keys).await?;
            let missing = some.iter().zip(&found).filter(|(_, found)| {
                session_of(found.as_ref())
                    .is_none_or(|one| !is_live(one) || one.subject.as_ref() != Some(subject))
            });
            stray.extend(missing.map(|(sid, _)| *sid));
        }
        Ok(stray)
    }

    /// Reads the list and all its sessions again, in one state.
    async fn mend_index(
        &mut self,
        partition: Partition,
        subject: &Subject,
    ) -> Result<(), StoreError> {
        let key = Key::Index(subject.clone());
        let listed = self.load_one(partition, &key).await?;
        let sids = listed.as_ref().and_then(|found| found.record.as_index());
        let Some(sids) = sids.map(Vec::as_slice) else { return Ok(()) };
        let sessions = sids.iter().map(|sid| Key::Session(*sid));
        let keys: Vec<Key> = std::iter::once(key.clone()).chain(sessions).collect();
        let found = self.store.load(partition, &keys).await?;
        if version_of(found.first().and_then(Option::as_ref)) != version_of(listed.as_ref()) {
            // Somebody is at work on it, so it is looked after.
            return Ok(());
        }
        let lives = |found: &Option<Versioned>| {
            session_of(found.as_ref())
                .is_some_and(|one| is_live(one) && one.subject.as_ref() == Some(subject))
        };
        let pairs = || sids.iter().zip(&found[1..]);
        let stray: Vec<Sid> =
            pairs().filter(|(_, found)| !lives(found)).map(|(sid, _)| *sid).collect();
        let kept: Vec<Sid> =
            pairs().filter(|(_, found)| lives(found)).map(|(sid, _)| *sid).collect();
        let mut repair = Batch::default();
        repair.put(key, version_of(listed.as_ref()), Record::Index(kept), Review::Never);
        let mut repair = Some(repair);
        for sid in stray {
            let fault = Fault::IndexWithoutSession;
            // The first repair mends them all.
            let first = repair.take();
            let is_mended = first.is_none() && self.found.last().is_some_and(|last| last.repaired);
            self.note(partition, fault, sid.to_string(), first).await?;
            if let Some(last) = self.found.last_mut() {
                last.repaired |= is_mended;
            }
        }
        Ok(())
    }

    /// Sessions that nobody lists, files or logged.
    pub(super) async fn sessions(
        &mut self,
        partition: Partition,
        (logged, told): (&Logged, &Told),
        filed: Option<&Filed>,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.page(partition, Kind::Session, after.as_ref(), PAGE).await?;
            self.looked.sessions += page.len() as u64;
            let subjects = self.subjects_of(partition, &page).await?;
            for (key, found) in &page {
                let Some(session) = session_of(Some(found)) else { continue };
                self.filing_of(partition, key, session, filed).await?;
                self.events_of(partition, session, logged).await?;
                self.told_of_session(partition, session, told).await?;
                let known = session.subject.as_ref().and_then(|subject| subjects.get(subject));
                let is_whole = known.is_none_or(|(has_record, listed)| {
                    *has_record && (listed.contains(&session.sid) || !is_live(session))
                });
                if !is_whole {
                    self.mend_session(partition, session).await?;
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().map(|(key, _)| key.clone());
        }
    }

    /// Of the subjects of these sessions: whether they have a record, and their lists.
    async fn subjects_of(
        &self,
        partition: Partition,
        page: &[(Key, Versioned)],
    ) -> Result<BTreeMap<Subject, (bool, Vec<Sid>)>, StoreError> {
        let subjects =
            page.iter().filter_map(|(_, found)| session_of(Some(found))?.subject.clone());
        let mut subjects: Vec<Subject> = subjects.collect();
        subjects.sort();
        subjects.dedup();
        let mut known = BTreeMap::new();
        for some in subjects.chunks(PAGE / 2) {
            let keys = some
                .iter()
                .flat_map(|subject| [Key::Subject(subject.clone()), Key::Index(subject.clone())]);
            let found = self.store.load(partition, &keys.collect::<Vec<_>>()).await?;
            for (subject, found) in some.iter().zip(found.chunks(2)) {
                let has_record = found.first().is_some_and(Option::is_some);
                let listed = found.get(1).and_then(Option::as_ref);
                let listed = listed.and_then(|found| found.record.as_index());
                known.insert(subject.clone(), (has_record, listed.cloned().unwrap_or_default()));
            }
        }
        Ok(known)
    }

    /// Reads a session and what it should be named by again, in one state.
    async fn mend_session(
        &mut self,
        partition: Partition,
        session: &Session,
    ) -> Result<(), StoreError> {
        let Some(subject) = &session.subject else { return Ok(()) };
        let index = Key::Index(subject.clone());
        let subject = Key::Subject(subject.clone());
        let keys = [Key::Session(session.sid), subject, index.clone(), Key::Partition];
        let found = self.store.load(partition, &keys).await?;
        let [now, record, listed, state] = found.as_slice() else { return Ok(()) };
        let Some(session) = session_of(now.as_ref()) else { return Ok(()) };
        let name = session.sid.to_string();
        if record.is_none() {
            // Its epoch is gone, and with it what was signed out: nothing can stand in for it.
            self.note(partition, Fault::SessionWithoutSubject, name.clone(), None).await?;
        }
        let mut sids = listed.as_ref().and_then(|found| found.record.as_index().cloned());
        let sids = sids.get_or_insert_default();
        let known = record.as_ref().and_then(|found| found.record.as_subject());
        let state = state.as_ref().and_then(|found| found.record.as_partition());
        // One that was signed out everywhere is over by its epoch, and on no list.
        let stands = state.is_some_and(|state| session.standing(known, state, self.now).is_ok());
        if stands && !sids.contains(&session.sid) {
            sids.push(session.sid);
            let mut repair = Batch::default();
            repair.expect(Key::Session(session.sid), version_of(now.as_ref())).put(
                index,
                version_of(listed.as_ref()),
                Record::Index(std::mem::take(sids)),
                Review::Never,
            );
            self.note(partition, Fault::SessionWithoutIndex, name, Some(repair)).await?;
        }
        Ok(())
    }

    /// Data that no session has.
    pub(super) async fn data(&mut self, partition: Partition) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.page(partition, Kind::Data, after.as_ref(), PAGE).await?;
            self.looked.records += page.len() as u64;
            let sids: Vec<Sid> = page
                .iter()
                .filter_map(|(key, _)| if let Key::Data(sid) = key { Some(*sid) } else { None })
                .collect();
            let keys: Vec<Key> = sids.iter().map(|sid| Key::Session(*sid)).collect();
            let sessions = self.store.load(partition, &keys).await?;
            for (sid, _) in sids.iter().zip(sessions).filter(|(_, found)| found.is_none()) {
                let keys = [Key::Session(*sid), Key::Data(*sid)];
                let again = self.store.load(partition, &keys).await?;
                if let [None, Some(data)] = again.as_slice() {
                    let mut repair = Batch::default();
                    repair.delete(Key::Data(*sid), data.version);
                    let (fault, with) = (Fault::DataWithoutSession, sid.to_string());
                    self.note(partition, fault, with, Some(repair)).await?;
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().map(|(key, _)| key.clone());
        }
    }

    /// Handles that lead nowhere, and whose session isn't about to be opened.
    pub(super) async fn handles(&mut self, partition: Partition) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.page(partition, Kind::Handle, after.as_ref(), PAGE).await?;
            self.looked.records += page.len() as u64;
            for (key, found) in &page {
                let Some(pointer) = found.record.as_handle() else { continue };
                let is_fresh = self.now.since(pointer.at) < HANDLE_WAITS;
                // A session of somebody lives in another partition than the handle.
                let home = pointer.sid.partition();
                let session = self.load_one(home, &Key::Session(pointer.sid)).await?;
                if is_fresh || session.is_some() {
                    continue;
                }
                let mut repair = Batch::default();
                repair.delete(key.clone(), found.version);
                let (fault, with) = (Fault::HandleWithoutSession, pointer.sid.to_string());
                self.note(partition, fault, with, Some(repair)).await?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().map(|(key, _)| key.clone());
        }
    }

    /// Whether the clean-up will look at a session.
    async fn filing_of(
        &mut self,
        partition: Partition,
        key: &Key,
        session: &Session,
        filed: Option<&Filed>,
    ) -> Result<(), StoreError> {
        if filed.is_none_or(|filed| filed.has(key)) {
            return Ok(());
        }
        let again = self.filed(partition).await?;
        let found = self.load_one(partition, key).await?;
        let (Some(again), Some(found)) = (again, found) else { return Ok(()) };
        if again.has(key) {
            return Ok(());
        }
        let mut repair = Batch::default();
        let review = review_of(session, self.now);
        repair.put(key.clone(), found.version, found.record, review);
        let (fault, with) = (Fault::SessionNotFiled, session.sid.to_string());
        self.note(partition, fault, with, Some(repair)).await
    }
}

/// So long a handle waits for the session that it names.
const HANDLE_WAITS: std::time::Duration = std::time::Duration::from_secs(120);
