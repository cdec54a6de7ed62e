-- Run once per MariaDB server (10.6 or newer), as root: the user that Vault connects as, and what ends a session's user.
--   { printf "SET @issuer_password = '%s';\n" "$(cat password-file)"; cat issuer.sql; } | mariadb
-- MySQL 8 (untried) writes CONNECTION_ADMIN.  The names are Vault's of this engine: v-...

-- Revocation runs as this user, into which nobody can log in.
CREATE USER IF NOT EXISTS doorward_definer@localhost ACCOUNT LOCK;
CREATE DATABASE IF NOT EXISTS doorward;
DROP PROCEDURE IF EXISTS doorward.end_user;
GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO doorward_definer@localhost;
DELIMITER //
-- No new login first, then the end of every connection, waited for up to 4 s.  Can be run again after any failure.
CREATE DEFINER = doorward_definer@localhost PROCEDURE doorward.end_user(IN name VARCHAR(80))
BEGIN
    DECLARE connection BIGINT;
    DECLARE looks INT DEFAULT 400;
    DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; -- it ended by itself
    IF name NOT LIKE 'v-%' THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'end_user: not a user that Vault made';
    END IF;
    SET @doorward_drop = CONCAT('DROP USER IF EXISTS ', QUOTE(name), '@''%''');
    PREPARE dropping FROM @doorward_drop;
    EXECUTE dropping;
    DEALLOCATE PREPARE dropping;
    SET connection = (SELECT MIN(id) FROM information_schema.processlist WHERE user = name);
    WHILE connection IS NOT NULL AND looks > 0 DO
        KILL CONNECTION connection;
        DO SLEEP(0.01);
        SET looks = looks - 1;
        SET connection = (SELECT MIN(id) FROM information_schema.processlist WHERE user = name);
    END WHILE;
    IF connection IS NOT NULL THEN
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'end_user: a connection does not end';
    END IF;
END //
DELIMITER ;
GRANT EXECUTE ON PROCEDURE doorward.end_user TO doorward_definer@localhost;

SET @doorward_issuer = CONCAT('CREATE USER IF NOT EXISTS doorward_issuer@''%'' IDENTIFIED BY ', QUOTE(@issuer_password));
PREPARE issuer FROM @doorward_issuer;
EXECUTE issuer;
DEALLOCATE PREPARE issuer;
GRANT CREATE USER ON *.* TO doorward_issuer@'%';
GRANT EXECUTE ON PROCEDURE doorward.end_user TO doorward_issuer@'%';
-- What its roles may hand on, and no more.
GRANT SELECT ON stock.* TO doorward_issuer@'%' WITH GRANT OPTION;
