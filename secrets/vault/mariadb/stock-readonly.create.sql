CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' WITH MAX_USER_CONNECTIONS 20;
GRANT SELECT ON stock.* TO '{{name}}'@'%';
